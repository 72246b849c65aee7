"use strict";
// The what-if: sizes by the recording's formulas, the peak and its owners, the allocator's replay,
// and the risk; as peftadvisor/cost_model/memory.py has them, to the printed digit.
var whatIf = (() => {
  const HANDLES = 2;
  const HALVINGS = 3;
  const WIDTH = 0.01;
  const LIKELY_OOM = 0.5;
  const GIB = 1024 ** 3;
  const UNITS = [["GiB", GIB], ["MiB", 1024 ** 2], ["KiB", 1024]];

  // -- Numbers as Python prints them ------------------------------------------------------------

  // Decimals with halves to even where the number lies exactly between two.
  function fixed(value, digits) {
    const scale = 10 ** digits;
    const scaled = value * scale;
    const exact = Number.isInteger(value * 2 ** (digits + 1));
    if (exact && Math.abs(scaled % 1) === 0.5) {
      const low = Math.floor(scaled);
      return ((low % 2 === 0 ? low : low + 1) / scale).toFixed(digits);
    }
    return value.toFixed(digits);
  }

  function grouped(text) {
    const [whole, rest] = text.split(".");
    const parts = whole.replace(/\B(?=(\d{3})+(?!\d))/g, ",");
    return rest === undefined ? parts : `${parts}.${rest}`;
  }

  function significant(value, digits) {
    const [mantissa, power] = value.toExponential(digits - 1).split("e");
    const exponent = Number(power);
    const strip = (text) => (text.includes(".") ? text.replace(/\.?0+$/, "") : text);
    if (exponent < -4 || exponent >= digits) {
      const size = String(Math.abs(exponent)).padStart(2, "0");
      return `${strip(mantissa)}e${exponent < 0 ? "-" : "+"}${size}`;
    }
    return strip(value.toFixed(digits - 1 - exponent));
  }

  function bytes(count) {
    for (const [unit, size] of UNITS) {
      if (Math.abs(count) >= size) return `${fixed(count / size, 2)} ${unit}`;
    }
    return `${count} B`;
  }

  function seconds(value) {
    if (value < 1) return `${significant(value * 1e3, 3)} ms`;
    if (value < 120) return `${significant(value, 3)} s`;
    if (value < 7200) return `${significant(value / 60, 3)} min`;
    return `${significant(value / 3600, 3)} h`;
  }

  function percent(share) {
    if (share > 0 && share < 0.001) return "< 0.1 %";
    return `${fixed(100 * share, 1).replace(/\.0$/, "")} %`;
  }

  function count(number) {
    for (const [unit, size] of [["B", 1e9], ["M", 1e6], ["K", 1e3]]) {
      if (number >= size) return `${fixed(number / size, 2)}${unit}`;
    }
    return String(number);
  }

  // -- What the page carries --------------------------------------------------------------------

  async function unpack(text) {
    const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).arrayBuffer();
  }

  async function unpackReel(reel) {
    return {
      back: new Int32Array(await unpack(reel.back)),
      formula: new Uint16Array(await unpack(reel.formula)),
      owner: new Uint8Array(await unpack(reel.owner)),
      phase: new Uint8Array(await unpack(reel.phase)),
    };
  }

  async function unpackTape(tape) {
    const names = ["coefficients", "constants", "flops", "flopConstants"];
    const arrays = await Promise.all(names.map((name) => unpack(tape[name])));
    const [coefficients, constants, flops, flopConstants] = arrays.map((a) => new BigInt64Array(a));
    return {
      ...tape,
      coefficients: Float64Array.from(coefficients, Number),
      constants: Float64Array.from(constants, Number),
      flops,
      flopConstants,
    };
  }

  async function unpackAll(carried) {
    return {
      ...carried,
      reels: await Promise.all(carried.reels.map(unpackReel)),
      tapes: await Promise.all(carried.tapes.map(unpackTape)),
      tape: new Int16Array(await unpack(carried.tape)),
      step: new Float64Array(await unpack(carried.step)),
    };
  }

  // -- The run at one place ---------------------------------------------------------------------

  function factor(power, rounding, length) {
    if (!rounding) return length ** power;
    const rounded = Math.ceil(length / rounding) * rounding;
    return power === 1 ? rounded : length * rounded;
  }

  function termsAt(tape, batch, length, target) {
    const source = length + tape.virtual;
    const goal = target + tape.virtual;
    return tape.terms.map(([b, sp, sr, tp, tr]) => batch ** b * factor(sp, sr, source) * factor(tp, tr, goal));
  }

  function valuesOf(tape, terms) {
    return Float64Array.from(tape.constants, (constant, formula) =>
      terms.reduce((sum, term, n) => sum + tape.coefficients[formula * terms.length + n] * term, constant));
  }

  function flopsOf(run, tape, terms) {
    const exact = terms.map(BigInt);
    let total = 0n;
    tape.flopConstants.forEach((constant, phase) => {
      const once = exact.reduce((sum, term, n) => sum + tape.flops[phase * exact.length + n] * term, constant);
      total += phase === run.optimizer ? once : BigInt(run.microBatches) * once;
    });
    return Number(total);
  }

  function peakOf(run, reel, units) {
    let held = 0;
    let most = 0;
    let place = 0;
    let made = 0;
    reel.back.forEach((back, event) => {
      if (back === 0) {
        held += units[made];
        made += 1;
      } else held -= units[made - back];
      if (held > most || event === 0) {
        most = held;
        place = event;
      }
    });
    return { ...ownersAt(run, reel, units, place), phase: run.phases[reel.phase[place]] };
  }

  function ownersAt(run, reel, units, place) {
    const owners = new Array(run.owners.length).fill(0);
    let made = 0;
    for (let event = 0; event <= place; event += 1) {
      const back = reel.back[event];
      const storage = back === 0 ? made : made - back;
      if (back === 0) made += 1;
      const size = units[storage] * Allocator.UNIT;
      owners[run.heldBy[reel.owner[storage]]] += back === 0 ? size : -size;
    }
    return { owners };
  }

  function reservedOf(allocated, room, replayed) {
    const free = Math.max(allocated, replayed(Infinity).peak);
    if (free <= room || allocated > room) return { peak: free, needed: free };
    const bounded = replayed(room);
    let [least, most] = bounded.fits ? [allocated, room] : [room, free];
    for (let n = 0; n < HALVINGS; n += 1) {
      const middle = Math.floor((least + most) / 2);
      if (replayed(middle).fits) most = middle;
      else least = middle;
    }
    return { peak: bounded.fits ? Math.max(allocated, bounded.peak) : free, needed: most };
  }

  function riskOf(run, device, usable) {
    const score = Math.log(usable / device);
    return run.scores.reduce((sum, value, n) => {
      const t = (score - value) / (WIDTH * Math.sqrt(3));
      const below = 0.5 + (Math.atan(t) + t / (1 + t ** 2)) / Math.PI;
      return sum + run.weights[n] * (1 - below);
    }, 0);
  }

  function trainingAt(run, tape, terms, card) {
    const reel = run.reels[tape.reel];
    const values = valuesOf(tape, terms);
    const units = Float64Array.from(reel.formula, (formula) => Math.ceil(values[formula] / Allocator.UNIT));
    const { owners, phase } = peakOf(run, reel, units);
    owners[run.owners.indexOf("workspace")] += HANDLES * card.workspace;
    const allocated = owners.reduce((sum, size) => sum + size, 0);
    const workspace = new Array(HANDLES).fill(Math.ceil(card.workspace / Allocator.UNIT));
    const room = card.usable - card.context;
    const replayed = (capacity) => Allocator.replay(reel.back, units, workspace, capacity);
    const { peak, needed } = reservedOf(allocated, room, replayed);
    owners[run.owners.indexOf("fragmentation")] = peak - allocated;
    owners[run.owners.indexOf("context")] = card.context;
    return {
      allocated, reserved: peak, device: peak + card.context, owners, phase,
      risk: riskOf(run, needed + card.context, card.usable),
    };
  }

  // The answers at places of GPU, size, batch and length; null where nothing is on file.
  function answersAt(run, [gpu, size, row, column]) {
    const place = ((gpu * run.sizes + size) * run.batches.length + row) * run.lengths.length + column;
    if (run.tape[place] < 0) return null;
    const card = run.cards[gpu];
    const tape = run.tapes[run.tape[place]];
    const terms = termsAt(tape, run.batches[row], run.lengths[column], run.target);
    const trained = trainingAt(run, tape, terms, card);
    const load = card.loading;
    const loads = load && load.allocated > trained.allocated && load.device > trained.device;
    const memory = loads ? load : trained;
    const step = run.step[place];
    const tokens = (run.counted[0] ? run.lengths[column] : 0) + (run.counted[1] ? run.target : 0);
    const throughput = (run.batches[row] * run.microBatches * tokens) / step;
    return { card, memory, step, throughput, flops: flopsOf(run, tape, terms), trained: tape.trained };
  }

  function verdictOf(risk, accepted) {
    if (risk <= accepted) return "fits";
    return risk > LIKELY_OOM ? "does not fit" : "tight";
  }

  function wordsOf(run, found) {
    const { card, memory, step, throughput } = found;
    const [low, high] = run.interval.map((share) => fixed(Math.trunc(share * memory.device) / GIB, 1));
    const words = {
      verdict: verdictOf(memory.risk, run.accepted),
      risk: percent(memory.risk),
      device: bytes(memory.device),
      interval: `${low} – ${high}`,
      reserved: bytes(memory.reserved),
      allocated: bytes(memory.allocated),
      phase: memory.phase,
      step: seconds(step),
      throughput: grouped(fixed(throughput, 0)),
      flops: grouped(fixed(found.flops / 1e12, 2)),
      trained: count(found.trained),
      price: card.usd === null ? "–" : grouped(fixed(((card.usd / 3600) / throughput) * 1e6, 3)),
    };
    run.owners.forEach((name, n) => { words[`owner-${name}`] = bytes(memory.owners[n]); });
    return words;
  }

  // -- The page ---------------------------------------------------------------------------------

  function shown(run, found) {
    const words = found && wordsOf(run, found);
    document.querySelectorAll("[data-answer]").forEach((cell) => {
      cell.textContent = words ? words[cell.dataset.answer] : "–";
    });
    const most = found ? Math.max(found.memory.device, found.card.usable) * 1.04 : 1;
    document.querySelectorAll("[data-bar]").forEach((part) => {
      const size = found ? found.memory.owners[run.owners.indexOf(part.dataset.bar)] : 0;
      part.style.width = `${(100 * size) / most}%`;
    });
    const line = document.getElementById("w-card");
    line.style.left = found ? `${(100 * found.card.usable) / most}%` : "0";
    const state = document.getElementById("w-state");
    if (!found) state.textContent = "Not on file: nothing is recorded for this place.";
    else {
      const note = found.card.note ? ` (${found.card.note})` : "";
      state.textContent = `On ${found.card.name}${note}: ${words.verdict}, ${words.device} of ${bytes(found.card.usable)}, risk ${words.risk}.`;
    }
  }

  async function start() {
    const carried = document.getElementById("carried");
    if (!carried) return;
    const run = await unpackAll(JSON.parse(carried.textContent));
    const sliders = ["gpu", "size", "batch", "length"].map((name) => document.getElementById(`w-${name}`));
    let asked = 0;

    function update() {
      asked = 0;
      const places = sliders.map((slider) => (slider ? Number(slider.value) : 0));
      sliders.forEach((slider) => {
        if (!slider) return;
        const text = JSON.parse(slider.dataset.stops)[slider.value];
        document.getElementById(`${slider.id}-at`).textContent = text;
        slider.setAttribute("aria-valuetext", text);
      });
      shown(run, answersAt(run, places));
    }

    sliders.forEach((slider) => {
      if (!slider) return;
      slider.disabled = false;
      slider.addEventListener("input", () => { asked = asked || requestAnimationFrame(update); });
    });
    update();
    document.getElementById("controls").dataset.ready = "true";
    return run;
  }

  const ready = start();
  return { ready, answersAt, wordsOf };
})();
