// The explorer's page: takes answers from Python, shows them by viewer.js, draws a digit, copies commands.
"use strict";
const explorer = (() => {
  const $ = id => document.getElementById(id);
  const at = (what, slot) => document.querySelector(`[data-${what}="${slot}"]`);
  const answers = {};
  let count = 0;

  function model(name) {
    for (const doc of window.Bokeh ? Bokeh.documents : []) {
      const found = doc.get_model_by_name(name);
      if (found) return found;
    }
    return null;
  }

  function receive(answer) {
    const {slot} = answer;
    count += 1;
    at("refused", slot).textContent = answer.refused ?? "";
    if (answer.hide) {
      actrelax.hide(slot);
    } else if (!answer.refused) {
      answers[slot] = answer;
      actrelax.show(slot, {heading: slot.toUpperCase(), ...answer.shown});
      at("said", slot).textContent = answer.said.join(" ");
      at("command", slot).textContent = answer.command;
      at("python", slot).textContent = answer.python;
      pad.take();
    }
    document.documentElement.dataset.answers = count;
  }

  // ---- a drawing: square pixels of sixteen greys, white ink

  const pad = {
    side: 8, pixels: new Array(64).fill(0), inking: false, erasing: false, last: null,

    take() {
      const digits = [...model("drawing").value].map(digit => parseInt(digit, 16));
      const side = Math.sqrt(digits.length);
      if (this.inking || !Number.isInteger(side) || digits.some(Number.isNaN)) return;
      Object.assign(this, {side, pixels: digits});
      this.paint();
    },

    clear() {
      this.pixels = new Array(this.side ** 2).fill(0);
      this.paint();
    },

    paint() {
      const canvas = $("pad");
      canvas.width = canvas.height = this.side;
      const context = canvas.getContext("2d"), image = context.createImageData(this.side, this.side);
      this.pixels.forEach((x, i) => image.data.set([17 * x, 17 * x, 17 * x, 255], 4 * i));
      context.putImageData(image, 0, 0);
    },

    ink(event) {
      const box = $("pad").getBoundingClientRect();
      const x = (event.clientX - box.left) / box.width * this.side, y = (event.clientY - box.top) / box.height * this.side;
      const [fromX, fromY] = this.last ?? [x, y], stops = Math.ceil(3 * Math.hypot(x - fromX, y - fromY)) || 1;
      for (let i = 1; i <= stops; i++) this.dot(fromX + (x - fromX) * i / stops, fromY + (y - fromY) * i / stops);
      this.last = [x, y];
      this.paint();
    },

    dot(x, y) {
      const reach = this.side > 8 ? 1.6 : 0.9;
      this.pixels.forEach((before, i) => {
        const near = 1 - Math.hypot(i % this.side + 0.5 - x, Math.floor(i / this.side) + 0.5 - y) / reach;
        if (near > 0) this.pixels[i] = this.erasing ? 0 : Math.max(before, Math.min(15, Math.round(24 * near)));
      });
    },

    send() {
      model("from").value = "drawing";
      model("drawing").value = this.pixels.map(x => x.toString(16)).join("");
    },
  };

  $("pad").addEventListener("pointerdown", event => {
    Object.assign(pad, {inking: true, last: null});
    pad.erasing = event.button === 2 || event.shiftKey;
    $("pad").setPointerCapture(event.pointerId);
    pad.ink(event);
  });
  $("pad").addEventListener("pointermove", event => { if (pad.inking) pad.ink(event); });
  $("pad").addEventListener("pointerup", () => { pad.inking = false; pad.send(); });
  $("pad").addEventListener("contextmenu", event => event.preventDefault());
  $("clear").addEventListener("click", () => pad.clear());

  // ---- copying, and tabs

  document.addEventListener("click", async event => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const [what, slot] = button.dataset.copy.split(" ");
    try {
      await navigator.clipboard.writeText(answers[slot][what]);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(at(what, slot));
      button.textContent = "Selected: copy it";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });

  const tabs = [...document.querySelectorAll("[role=tab]")];
  function choose(tab) {
    for (const each of tabs) {
      const chosen = each === tab;
      each.setAttribute("aria-selected", chosen);
      each.tabIndex = chosen ? 0 : -1;
      $(each.getAttribute("aria-controls")).hidden = !chosen;
    }
    actrelax.theme();
  }
  for (const tab of tabs) {
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", event => {
      if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
      const other = tabs[1 - tabs.indexOf(tab)];
      choose(other);
      other.focus();
    });
  }

  if (innerWidth < 960) document.querySelector(".controls").open = false;  // the picture first
  pad.paint();
  return {receive, answers};
})();
