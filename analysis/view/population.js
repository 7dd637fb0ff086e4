// One population of a relaxation, unpacked from what pack.py wrote: its activity as an image beside its gradient.
"use strict";
const populations = (() => {
  const HALF = 32767;
  let palette = new Uint8Array(3 * 255);

  const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
  const words = text => new Uint16Array(bytes(text).buffer);
  const places = text => new Int32Array(bytes(text).buffer);
  const floats = text => new Float32Array(bytes(text).buffer);
  const brief = x => (x === 0 ? "0" : Math.abs(x) >= 0.01 && Math.abs(x) < 1000 ? x.toPrecision(3) : x.toExponential(1));
  const element = (parent, tag, fields = {}) => parent.appendChild(Object.assign(document.createElement(tag), fields));

  class Population {
    constructor(packed, points) {
      Object.assign(this, packed);
      this.points = points;
      for (const name of ["activities", "gradient"]) this[name] = words(packed[name]);
      for (const name of ["errors", "arrived"]) this[name] = floats(packed[name]);
      this.predicted = packed.predicted === null ? null : floats(packed.predicted);
      this.places = places(packed.places);
    }

    choose(sample) {
      this.sample = sample;
      this.reach = Math.asinh(this.most[sample] / this.scale[sample]);
      this.goal = this.gradient.subarray(sample * this.units, (sample + 1) * this.units);
      const order = Array.from(this.goal.keys());
      if (this.sorted) order.sort((i, j) => this.goal[i] - this.goal[j]);
      this.order = order;
    }

    codes(time) {
      const start = (this.sample * this.points + time) * this.units;
      return this.activities.subarray(start, start + this.units);
    }

    value(code) {
      return this.scale[this.sample] * Math.sinh((code - HALF) / HALF * this.reach);
    }

    row(values, sample = this.sample) {
      const count = values.length / this.scale.length;
      return Array.from(values.subarray(sample * count, (sample + 1) * count));
    }

    paint(canvas, codes, scale) {
      const context = canvas.getContext("2d");
      const image = context.createImageData(this.columns, this.rows);
      this.places.forEach((place, pixel) => {
        if (place < 0) return;
        const code = codes[this.order[place]];
        const share = scale === "asinh" ? (code - HALF) / HALF : this.value(code) / this.scale[this.sample];
        const colour = 3 * Math.round(127 + 127 * Math.max(-1, Math.min(1, share)));
        image.data.set([palette[colour], palette[colour + 1], palette[colour + 2], 255], 4 * pixel);
      });
      context.putImageData(image, 0, 0);
    }

    build(parent) {
      const card = element(parent, "section", {className: "population"});
      card.dataset.population = this.name;
      const kind = this.shape.length === 3
        ? `${this.shape[0]} maps of ${this.shape[1]} × ${this.shape[2]}` : `${this.units} units, sorted by gradient`;
      const title = element(card, "h3", {textContent: `${this.name} `});
      element(title, "small", {textContent: `${kind}; ${this.hops} hop${this.hops > 1 ? "s" : ""} from the output`});
      const pair = element(card, "div", {className: `pair ${this.sorted ? "strips" : "maps"}`});
      this.canvases = ["activity", "gradient"].map(what => {
        const figure = element(pair, "figure");
        element(figure, "figcaption", {textContent: what});
        const canvas = element(figure, "canvas", {width: this.columns, height: this.rows});
        canvas.setAttribute("role", "img");
        canvas.dataset.what = what;
        canvas.addEventListener("pointermove", event => this.point(event, canvas));
        return canvas;
      });
      this.note = element(card, "p", {className: "note"});
    }

    point(event, canvas) {
      const x = Math.floor(event.offsetX / canvas.clientWidth * this.columns);
      const y = Math.floor(event.offsetY / canvas.clientHeight * this.rows);
      const unit = this.order[this.places[y * this.columns + x]];
      canvas.title = unit === undefined ? ""
        : `unit ${unit}: activity ${brief(this.value(this.now[unit]))}, gradient ${brief(this.value(this.goal[unit]))}`;
    }

    draw(time, scale) {
      this.now = this.codes(time);
      this.paint(this.canvases[0], this.now, scale);
      this.paint(this.canvases[1], this.goal, scale);
      let largest = 0;
      for (const code of this.now) largest = Math.max(largest, Math.abs(code - HALF));
      const error = this.errors[this.sample * this.points + time];
      this.note.textContent = `largest activity ${brief(this.value(HALF + largest))}, ` +
        `largest gradient ${brief(this.scale[this.sample])}, error ${brief(error)}`;
      this.canvases[0].setAttribute("aria-label", `activity of ${this.name}, error ${brief(error)}`);
      this.canvases[1].setAttribute("aria-label", `gradient of ${this.name}`);
    }
  }

  // Take 255 colours, red, green and blue in base64, and show them on a canvas of 255 pixels.
  function colours(text, canvas) {
    palette = bytes(text);
    const context = canvas.getContext("2d"), image = context.createImageData(255, 1);
    for (let i = 0; i < 255; i++) image.data.set([...palette.subarray(3 * i, 3 * i + 3), 255], 4 * i);
    context.putImageData(image, 0, 0);
  }

  return {Population, bytes, colours, element};
})();
