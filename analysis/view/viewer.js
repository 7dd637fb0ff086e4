// Shows relaxations that pack.py has packed: images of activities beside their gradients, charts, and a time.
"use strict";
const actrelax = (() => {
  const LINES = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#808080"];
  const DASHES = [[], [8, 4], [8, 3, 2, 3], [2, 3]];
  const MOST_LINES = 7;
  const viewers = {};  // slot -> what is shown there
  const grid = {times: [0], at: 0, timer: null};
  const {Population, bytes, element} = populations;
  const $ = id => document.getElementById(id);

  // ---- Bokeh's models, by name

  function model(name) {
    for (const doc of window.Bokeh ? Bokeh.documents : []) {
      const found = doc.get_model_by_name(name);
      if (found) return found;
    }
    return null;
  }

  function whenDrawn(slot, action) {
    const ready = ["errors", "arrived"].every(chart => model(`${chart}-${slot}-cursor`));
    if (ready) action();
    else setTimeout(() => whenDrawn(slot, action), 30);
  }

  // ---- one relaxation

  class Viewer {
    constructor(slot, packed) {
      this.slot = slot;
      Object.assign(this, packed);
      this.populations = packed.populations.map(each => new Population(each, packed.times.length));
      this.build(document.querySelector(`[data-viewer="${slot}"]`));
    }

    build(root) {
      root.replaceChildren();
      if (this.heading) element(root, "h2", {textContent: this.heading}).dataset.only = "both";
      const cards = element(root, "div", {className: "populations"});
      const card = element(cards, "section", {className: "population stimulus"});
      this.caption = element(card, "h3");
      this.stimulus = element(card, "canvas");
      this.stimulus.setAttribute("role", "img");
      this.stimulus.setAttribute("aria-label", "the stimulus");
      for (const each of this.populations) each.build(cards);
    }

    choose(sample) {
      this.sample = Math.min(sample, this.stimuli.length - 1);
      this.caption.textContent = `stimulus${this.labels === null ? "" : `, label ${this.labels[this.sample]}`}`;
      const {rows, columns, channels, bytes: text} = this.stimuli[this.sample];
      Object.assign(this.stimulus, {width: columns, height: rows});
      const context = this.stimulus.getContext("2d"), image = context.createImageData(columns, rows), grey = bytes(text);
      for (let i = 0; i < rows * columns; i++) {
        for (let c = 0; c < 3; c++) image.data[4 * i + c] = grey[channels * i + (channels === 3 ? c : 0)];
        image.data[4 * i + 3] = 255;
      }
      context.putImageData(image, 0, 0);
      for (const each of this.populations) each.choose(this.sample);
    }

    index(time) {
      let found = 0;
      while (found + 1 < this.times.length && this.times[found + 1] <= time * (1 + 1e-9)) found++;
      return found;
    }

    draw(time, scale) {
      this.at = this.index(time);
      for (const each of this.populations) each.draw(this.at, scale);
      for (const chart of ["errors", "arrived"]) {
        const cursor = model(`${chart}-${this.slot}-cursor`);
        if (cursor) cursor.location = this.times[this.at];
      }
    }

    fillCharts() {
      const some = this.populations.filter((_, i) => i % Math.ceil(this.populations.length / MOST_LINES) === 0);
      const positive = values => values.map(x => Math.max(x, 1e-18));
      const lines = {xs: [], ys: [], colour: [], dash: [], population: []}, circles = {x: [], y: [], colour: []};
      some.forEach((each, i) => {
        const ys = positive(each.row(each.errors));
        lines.xs.push([...this.times]);
        lines.ys.push(ys);
        lines.colour.push(LINES[i % LINES.length]);
        lines.dash.push(DASHES[i % DASHES.length]);
        lines.population.push(each.name);
        if (each.predicted === null) return;
        circles.x.push(...this.points);
        circles.y.push(...positive(each.row(each.predicted)));
        circles.colour.push(...this.points.map(() => LINES[i % LINES.length]));
      });
      model(`errors-${this.slot}`).height = 310 + 24 * Math.ceil(some.length / 3);  // rows of the legend
      model(`errors-${this.slot}-lines`).data = lines;
      model(`errors-${this.slot}-circles`).data = circles;
      this.fillArrived();
      for (const chart of ["errors", "arrived"]) {
        for (const axis of model(`${chart}-${this.slot}`).below) {
          if ("axis_label" in axis) axis.axis_label = `time (${this.unit})`;
        }
      }
      const say = (what, text) => {
        const note = document.querySelector(`[data-charts="${this.slot}"] [data-${what}]`);
        if (note) note.textContent = text;
      };
      say("errors", this.no_law === null ? "Circles: predicted by the scheme's exact law." : `No prediction: ${this.no_law}`);
      say("arrived", `Colour: ${this.arrived}.`);
    }

    fillArrived() {
      const t = this.times, middle = i => (t[i] + t[i + 1]) / 2, last = t.length - 1;
      const cells = {x: [], y: [], width: [], share: [], population: []};
      const labels = this.populations.map(each => `${each.name} (${each.hops})`);
      this.populations.forEach((each, row) => each.row(each.arrived).forEach((share, i) => {
        const low = i > 0 ? middle(i - 1) : t[0], high = i < last ? middle(i) : t[last];
        cells.x.push((low + high) / 2);
        cells.width.push(high - low || 1);
        cells.y.push(labels[row]);
        cells.share.push(share);
        cells.population.push(each.name);
      }));
      const figure = model(`arrived-${this.slot}`);
      figure.y_range.factors = labels;
      figure.height = Math.min(720, 140 + 30 * labels.length);
      for (const axis of figure.left) axis.major_label_text_font_size = labels.length > 25 ? "8px" : "11px";
      model(`arrived-${this.slot}-cells`).data = cells;
    }
  }

  // ---- all of them: time, sample, colours

  function showing() {
    return Object.values(viewers);
  }

  function seek(at) {
    grid.at = Math.max(0, Math.min(grid.times.length - 1, at));
    const time = grid.times[grid.at], scale = $("scale").value, unit = showing()[0]?.unit ?? "";
    for (const viewer of showing()) viewer.draw(time, scale);
    $("time").value = grid.at;
    $("clock").textContent = `${+time.toPrecision(6)} ${unit}`;
    $("time").setAttribute("aria-valuetext", $("clock").textContent);
  }

  function rescale() {
    const before = grid.times[grid.at];
    grid.times = [...new Set(showing().flatMap(viewer => viewer.times))].sort((a, b) => a - b);
    if (!grid.times.length) grid.times = [0];
    $("time").max = grid.times.length - 1;
    const later = grid.times.findIndex(time => time >= before);
    seek(later < 0 ? grid.times.length - 1 : later);
  }

  function fillCharts() {
    const drawn = showing();
    if (!drawn.length) return;
    for (const viewer of drawn) viewer.fillCharts();
    const values = drawn.flatMap(viewer => viewer.populations.flatMap(each => each.row(each.errors)));
    const visible = values.filter(x => x > 1e-18);
    const low = Math.min(...visible, 1), high = Math.max(...visible, 1);
    const ends = (start, end) => ({start, end, reset_start: start, reset_end: end});
    model("errors-a").y_range.setv(ends(Math.max(low / 2, 1e-17), 2 * high));
    model("errors-a").x_range.setv(ends(0, grid.times[grid.times.length - 1] || 1));
  }

  function chooseSample(sample) {
    for (const viewer of showing()) viewer.choose(sample);
    seek(grid.at);
    fillCharts();
  }

  function offerSamples() {
    const [first] = showing(), select = $("sample"), count = first ? first.stimuli.length : 0, before = select.value;
    select.replaceChildren();
    for (let i = 0; i < count; i++) {
      const label = first.labels === null ? "" : `: label ${first.labels[i]}`;
      element(select, "option", {value: i, textContent: `${i + 1} of ${count}${label}`});
    }
    select.value = before && before < count ? before : 0;
    $("which").hidden = count < 2;
    $("which").style.display = count < 2 ? "none" : "";
  }

  function show(slot, packed) {
    viewers[slot] = new Viewer(slot, packed);
    document.documentElement.dataset.shown = Object.keys(viewers).length;
    offerSamples();
    for (const viewer of showing()) viewer.choose(Number($("sample").value));
    rescale();
    const precision = document.querySelector("[data-rounding]");
    if (precision) precision.textContent = Math.floor(1 / packed.rounding).toLocaleString("en");
    whenDrawn(slot, () => { theme(); fillCharts(); seek(grid.at); document.documentElement.dataset.drawn = "yes"; });
  }

  function hide(slot) {
    delete viewers[slot];
    document.querySelector(`[data-viewer="${slot}"]`).replaceChildren();
    document.documentElement.dataset.shown = Object.keys(viewers).length;
    rescale();
    fillCharts();
  }

  function play(on) {
    clearInterval(grid.timer);
    grid.timer = null;
    $("play").textContent = on ? "❚❚ Pause" : "▶ Play";
    if (!on) return;
    if (grid.at >= grid.times.length - 1) seek(0);
    grid.timer = setInterval(() => {
      seek(grid.at + 1);
      if (grid.at >= grid.times.length - 1) play(false);
    }, Math.max(40, 8000 / grid.times.length));
  }

  // ---- colours of activities, and of the charts by day and by night

  function colours(text) {
    populations.colours(text, $("key"));
    nameColours();
  }

  function nameColours() {
    const unit = $("scale").value === "linear" ? "largest gradient" : "largest activity";
    $("least").textContent = `−${unit}`;
    $("most").textContent = `+${unit}`;
  }

  function theme() {
    const ink = getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();
    const line = getComputedStyle(document.documentElement).getPropertyValue("--line").trim();
    for (const figure of ["a", "b"].flatMap(s => [model(`errors-${s}`), model(`arrived-${s}`), model(`learning-${s}`)])) {
      if (!figure) continue;
      figure.outline_line_color = line;
      for (const each of [...figure.below, ...figure.left, ...figure.right, ...figure.center]) {
        const inks = ["axis_label_text_color", "major_label_text_color", "label_text_color", "title_text_color",
          "axis_line_color", "major_tick_line_color", "minor_tick_line_color"];
        for (const name of inks) if (name in each) each[name] = ink;
        if ("grid_line_color" in each) each.grid_line_color = line;
      }
    }
  }

  $("time").addEventListener("input", event => { play(false); seek(Number(event.target.value)); });
  $("play").addEventListener("click", () => play(grid.timer === null));
  $("sample").addEventListener("change", event => chooseSample(Number(event.target.value)));
  $("scale").addEventListener("change", () => { nameColours(); seek(grid.at); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", theme);

  function values(slot, name) {
    const viewer = viewers[slot], each = viewer.populations.find(population => population.name === name);
    return {
      time: viewer.times[viewer.at],
      activity: Array.from(each.now, code => each.value(code)),
      gradient: Array.from(each.goal, code => each.value(code)),
    };
  }

  return {show, hide, colours, values, seek, theme};
})();
