"use strict";
// Walk along a figure, and open what a link leads to. Nothing is fetched and nothing is kept.
(() => {
  const NS = "http://www.w3.org/2000/svg";

  function walk(figure) {
    const moments = JSON.parse(figure.dataset.walk);
    const svg = figure.querySelector("svg");
    const slider = figure.querySelector("input");
    const output = figure.querySelector("output");
    const [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
    const here = document.createElementNS(NS, "path");
    here.setAttribute("class", "here");
    svg.append(here);

    function show(place) {
      const [x, text] = moments[place];
      here.setAttribute("d", `M${x} 30V${height - 29}`);
      output.textContent = text;
      slider.setAttribute("aria-valuetext", text);
    }

    function nearest(x) {
      let best = 0;
      moments.forEach(([there], place) => {
        if (Math.abs(there - x) < Math.abs(moments[best][0] - x)) best = place;
      });
      return best;
    }

    slider.addEventListener("input", () => show(Number(slider.value)));
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      slider.value = nearest(((event.clientX - box.left) / box.width) * width);
      show(Number(slider.value));
    });
    show(Number(slider.value));
  }

  function open() {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    if (target instanceof HTMLDetailsElement) {
      target.open = true;
      target.querySelector("summary").focus();
    }
  }

  document.querySelectorAll("[data-walk]").forEach(walk);
  addEventListener("hashchange", open);
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => { d.open = true; }));
  open();
})();
