"""A DAG that trains only what fits: the check is a task, and training waits for it.

For Airflow 3 with ``apache-airflow-providers-standard``. Its workers need ``peftadvisor``; the
check needs no GPU, so it can run in a pool of its own.
"""

from __future__ import annotations

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, Param

# What may be asked of a run comes from the trigger, and reaches the shell as variables only.
RUN = {
    "CONFIG": "{{ params.config }}",
    "GPU": "{{ params.gpu }}",
    "MAX_HOURS": "{{ params.max_hours }}",
    "MAX_USD": "{{ params.max_usd }}",
}
CHECK = 'peftadvisor check --gpu "$GPU" --max-hours "$MAX_HOURS" --max-usd "$MAX_USD" -- "$CONFIG"'

with DAG(
    dag_id="finetune",
    schedule=None,
    params={
        "config": Param("/opt/configs/sft.yaml", type="string"),
        "gpu": Param("a100-80g", type="string"),
        "max_hours": Param(12, type="number", exclusiveMinimum=0),
        "max_usd": Param(40, type="number", exclusiveMinimum=0),
    },
) as dag:
    # Trying again does not make a run smaller.
    check = BashOperator(task_id="check", bash_command=CHECK, env=RUN, append_env=True, retries=0)
    train = BashOperator(
        task_id="train", bash_command='axolotl train "$CONFIG"', env=RUN, append_env=True
    )
    check >> train
