// Draws the charts of the page: the curves that agree with what is chosen, a legend that hides and shows them, and a
// cross-hair, moved by pointer or arrow keys, that shows their values.
"use strict";
(() => {
  const MARGIN = { left: 58, right: 14, top: 12, bottom: 44 };
  const charts = JSON.parse(document.getElementById("charts").textContent);

  const html = (name, properties, ...children) => {
    const element = Object.assign(document.createElement(name), properties);
    element.append(...children);
    return element;
  };
  const svg = (name, attributes, parent) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (parent) parent.append(element);
    return element;
  };
  const show = (value) => {
    if (value === 0) return "0";
    const size = Math.abs(value);
    return size < 1e-3 || size >= 1e5 ? value.toExponential(1).replace(".0e", "e").replace("e+", "e") : String(Number(value.toPrecision(3)));
  };

  // A scale from data to pixels, with its ticks.
  const scale = (low, high, from, to, log) => {
    const f = log ? Math.log10 : (value) => value;
    const place = (value) => from + ((f(value) - f(low)) / (f(high) - f(low) || 1)) * (to - from);
    const inside = (tick) => tick >= low * (1 - 1e-9) && tick <= high * (1 + 1e-9);
    let ticks = [];
    if (log) {
      const decades = Math.log10(high / low);
      const steps = decades > 6 ? [1] : decades > 2.5 ? [1, 3] : [1, 2, 5];
      const skip = Math.ceil(decades / 8);
      for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
        if (steps.length > 1 || power % skip === 0) ticks.push(...steps.map((step) => step * 10 ** power));
      ticks = ticks.filter(inside);
    }
    if (!log || ticks.length < 3) {
      ticks = [];
      const raw = (high - low) / 5 || 1;
      const unit = 10 ** Math.floor(Math.log10(raw));
      const step = [1, 2, 5, 10].find((factor) => factor * unit >= raw) * unit;
      for (let i = Math.ceil(low / step); i * step <= high * (1 + 1e-9); i++) ticks.push(i * step);
    }
    return { place, ticks: ticks.filter(inside) };
  };

  class Chart {
    constructor(host, data) {
      Object.assign(this, { host, data, hidden: new Set(), chosen: {}, at: null });
      this.choices = html("div", { className: "choices" });
      this.plot = html("div", { className: "plot", tabIndex: 0 });
      this.plot.setAttribute("role", "img");
      this.legend = html("div", { className: "legend" });
      this.readout = html("div", { className: "readout" });
      this.readout.setAttribute("aria-live", "polite");
      for (const choice of data.choices) this.addChoice(choice);
      host.prepend(this.choices, this.legend, this.plot);
      this.plot.addEventListener("pointermove", (event) => this.point(event));
      this.plot.addEventListener("pointerdown", (event) => this.point(event));
      this.plot.addEventListener("pointerleave", () => this.read(null));
      this.plot.addEventListener("keydown", (event) => this.step(event));
      this.plot.addEventListener("blur", () => this.read(null));
      new ResizeObserver(() => this.draw()).observe(this.plot);
    }

    addChoice(choice) {
      const options = choice.options.map(([value, name]) => html("option", { value, textContent: name }));
      const select = html("select", { name: choice.key }, ...options);
      select.value = this.chosen[choice.key] = choice.initial;
      select.addEventListener("change", () => {
        this.chosen[choice.key] = select.value;
        this.changeOthers(choice.key);
        this.draw();
      });
      this.choices.append(html("label", {}, html("span", { textContent: choice.label }), select));
    }

    matching() {
      const agrees = ([key, value]) => !(key in this.chosen) || this.chosen[key] === value;
      return this.data.series.filter((series) => series.y && Object.entries(series.keys).every(agrees));
    }

    // If no curve matches, because only some fields have the chosen metric, change the other choices until one does.
    changeOthers(kept) {
      const selects = [...this.choices.querySelectorAll("select")].filter((select) => select.name !== kept);
      for (const select of selects) {
        const before = select.value;
        for (const option of select.options) {
          if (this.matching().length) return;
          select.value = this.chosen[select.name] = option.value;
        }
        if (!this.matching().length) select.value = this.chosen[select.name] = before;
      }
    }

    draw() {
      const all = this.matching();
      this.drawLegend(all);
      this.series = all.filter((series) => !this.hidden.has(series.label));
      this.plot.replaceChildren(this.readout);
      this.read(null);
      const metric = this.data.y[this.chosen.metric] || Object.values(this.data.y)[0];
      const names = this.series.map((series) => series.label).join(", ");
      this.plot.setAttribute("aria-label", `${this.data.about}. ${metric.label} of ${names || "nothing"}.`);
      if (!this.series.length) {
        this.plot.append(html("p", { className: "soft", textContent: "No curve has these choices." }));
        return;
      }
      this.drawAxes(metric);
      for (const series of this.series) this.drawSeries(series);
      this.cross = svg("g", { class: "cross" }, this.picture);
    }

    bounds(axis) {
      const truth = this.series.filter((series) => series.colour === "truth");
      const fit = (truth.length ? truth : this.series).flatMap((series) => series.y);
      const values = fit.filter((value) => value !== null && (!axis.log || value > 0));
      values.push(...axis.marks.map(([value]) => value));
      let [low, high] = [Math.min(...values), Math.max(...values)];
      if (truth.length) return [low / 30, high * 30];
      for (const series of this.series) {
        // Intervals may widen the axis, but not by so much that the curves become flat.
        for (const value of series.high || []) if (value !== null) high = Math.max(high, Math.min(value, high * 1.3));
        for (const value of series.low || []) if (value > 0) low = Math.min(low, Math.max(value, low / 1.3));
      }
      if (axis.log) return low === high ? [low / 2, high * 2] : [low / 1.1, high * 1.1];
      return [Math.min(0, low), high * 1.08 || 1];
    }

    drawAxes(metric) {
      const width = Math.max(280, this.plot.clientWidth);
      const height = Math.round(Math.min(430, Math.max(270, width * 0.5)));
      const [right, bottom] = [width - MARGIN.right, height - MARGIN.bottom];
      const xs = this.series.flatMap((series) => this.data.grids[series.x]);
      const [low, high] = this.bounds(metric);
      let [first, last] = [Math.min(...xs), Math.max(...xs)];
      if (first === last) [first, last] = this.data.x.log ? [first / 2, last * 2] : [first - 1, last + 1];
      this.x = scale(first, last, MARGIN.left + 8, right - 8, this.data.x.log);
      this.y = scale(low, high, bottom, MARGIN.top, metric.log);
      this.picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" });
      this.plot.append(this.picture);
      const clip = `clip-${this.host.dataset.chart}`;
      svg("rect", { x: MARGIN.left, y: MARGIN.top - 6, width: right - MARGIN.left, height: bottom - MARGIN.top + 6 },
        svg("clipPath", { id: clip }, this.picture));
      for (const tick of this.y.ticks) {
        const y = this.y.place(tick);
        svg("line", { class: "grid", x1: MARGIN.left, x2: right, y1: y, y2: y }, this.picture);
        svg("text", { x: MARGIN.left - 8, y: y + 4, "text-anchor": "end" }, this.picture).textContent = show(tick);
      }
      const distinct = [...new Set(xs)].sort((a, b) => a - b);
      const mostTicks = Math.floor((right - MARGIN.left) / 45);
      for (const tick of distinct.length <= Math.min(6, mostTicks) ? distinct : this.x.ticks) {
        const x = this.x.place(tick);
        svg("line", { class: "tick", x1: x, x2: x, y1: bottom, y2: bottom + 5 }, this.picture);
        svg("text", { x, y: bottom + 19, "text-anchor": "middle" }, this.picture).textContent = show(tick);
      }
      svg("line", { class: "axis", x1: MARGIN.left, x2: right, y1: bottom, y2: bottom }, this.picture);
      for (const [value, name] of metric.marks) {
        const y = this.y.place(value);
        svg("line", { class: "mark", x1: MARGIN.left, x2: right, y1: y, y2: y }, this.picture);
        svg("text", { x: MARGIN.left + 4, y: y + 13 }, this.picture).textContent = name;
      }
      for (const [value, name] of this.data.x.marks.filter(([at]) => at >= first && at <= last)) {
        const x = this.x.place(value);
        svg("line", { class: "mark", x1: x, x2: x, y1: MARGIN.top, y2: bottom }, this.picture);
        svg("text", { x: x + 4, y: MARGIN.top + 8 }, this.picture).textContent = name;
      }
      const middle = (MARGIN.top + bottom) / 2;
      svg("text", { class: "label", x: (MARGIN.left + right) / 2, y: height - 6, "text-anchor": "middle" },
        this.picture).textContent = this.data.x.label;
      svg("text", { class: "label", "text-anchor": "middle", transform: `translate(14 ${middle}) rotate(-90)` },
        this.picture).textContent = metric.label;
      this.inside = svg("g", { "clip-path": `url(#${clip})` }, this.picture);
      Object.assign(this, { bottom, log: metric.log });
    }

    drawSeries(series) {
      const xs = this.data.grids[series.x];
      const colour = `var(--c-${series.colour})`;
      const point = (i, values) => `${this.x.place(xs[i]).toFixed(1)} ${this.y.place(values[i]).toFixed(1)}`;
      const drawable = (value) => value !== null && (!this.log || value > 0);
      const runs = [[]];
      xs.forEach((_, i) => (drawable(series.y[i]) ? runs[runs.length - 1].push(i) : runs.push([])));
      for (const run of runs.filter((indices) => indices.length)) {
        const banded = run.filter((i) => series.low && drawable(series.low[i]) && drawable(series.high[i]));
        if (banded.length > 1) {
          const back = [...banded].reverse().map((i) => point(i, series.low));
          const d = `M${banded.map((i) => point(i, series.high)).join("L")}L${back.join("L")}Z`;
          svg("path", { d, fill: colour, class: "band" }, this.inside);
        } else if (banded.length === 1 && xs.length === 1) {
          const d = `M${point(banded[0], series.low)}L${point(banded[0], series.high)}`;
          svg("path", { d, stroke: colour, class: "whisker" }, this.inside);
        }
        if (!series.points) {
          const d = `M${run.map((i) => point(i, series.y)).join("L")}`;
          svg("path", { d, class: "curve", stroke: colour, "stroke-dasharray": series.dash || "none" }, this.inside);
        }
        const level = xs.length > 1 && new Set(series.y).size === 1;
        if (series.points || (xs.length < 6 && !level))
          for (const i of run) {
            const [cx, cy] = point(i, series.y).split(" ");
            const fill = series.points ? "var(--card)" : colour;
            svg("circle", { cx, cy, r: series.points ? 4.5 : 3.5, fill, stroke: colour, "stroke-width": 1.8 }, this.inside);
          }
      }
    }

    drawLegend(all) {
      const entries = new Map(all.map((series) => [series.label, series]));
      const buttons = [...entries.values()].map((series) => {
        const key = svg("svg", { width: 26, height: 12, "aria-hidden": "true" });
        const style = { stroke: `var(--c-${series.colour})`, "stroke-width": 2.4, fill: "none" };
        if (series.points) svg("circle", { cx: 13, cy: 6, r: 4.5, ...style }, key);
        else svg("line", { x1: 1, x2: 25, y1: 6, y2: 6, "stroke-dasharray": series.dash || "none", ...style }, key);
        const button = html("button", { type: "button" }, key, series.label);
        button.setAttribute("aria-pressed", String(!this.hidden.has(series.label)));
        button.addEventListener("click", () => {
          if (!this.hidden.delete(series.label)) this.hidden.add(series.label);
          this.draw();
          [...this.legend.children].find((other) => other.textContent === series.label).focus();
        });
        return button;
      });
      this.legend.replaceChildren(...buttons);
    }

    places() {
      return [...new Set(this.series.flatMap((series) => this.data.grids[series.x]))].sort((a, b) => a - b);
    }

    point(event) {
      if (!this.series.length) return;
      const x = event.clientX - this.picture.getBoundingClientRect().left;
      const distance = (place) => Math.abs(this.x.place(place) - x);
      this.read(this.places().reduce((best, place) => (distance(place) < distance(best) ? place : best)));
    }

    step(event) {
      const places = this.places();
      const here = places.indexOf(this.at);
      const next = { ArrowRight: here + 1, ArrowLeft: here < 0 ? places.length - 1 : here - 1, Home: 0, End: places.length - 1 }[event.key];
      if (event.key === "Escape") this.read(null);
      if (next === undefined || !places.length) return;
      event.preventDefault();
      this.read(places[Math.min(places.length - 1, Math.max(0, next))]);
    }

    // Show the values of all curves at a place; null hides them.
    read(place) {
      this.at = place;
      this.readout.hidden = place === null;
      if (this.cross) this.cross.replaceChildren();
      if (place === null || !this.picture) return;
      const x = this.x.place(place);
      svg("line", { x1: x, x2: x, y1: MARGIN.top, y2: this.bottom }, this.cross);
      const found = this.series
        .map((series) => [series, this.data.grids[series.x].indexOf(place)])
        .filter(([series, i]) => i >= 0 && series.y[i] !== null)
        .sort(([a, i], [b, j]) => b.y[j] - a.y[i]);
      const rows = found.map(([series, i]) => {
        const interval = series.low && series.low[i] !== null ? `${show(series.low[i])} to ${show(series.high[i])}` : "";
        const swatch = html("i", {});
        swatch.style.background = `var(--c-${series.colour})`;
        const y = this.y.place(series.y[i]);
        if (y > MARGIN.top - 6 && y < this.bottom + 1)
          svg("circle", { cx: x, cy: y, r: 3.5, fill: `var(--c-${series.colour})` }, this.cross);
        return html("tr", {}, html("th", {}, swatch, series.label), html("td", { textContent: show(series.y[i]) }),
          html("td", { className: "soft", textContent: interval }));
      });
      const head = html("b", { textContent: `${this.data.x.label}: ${show(place)}` });
      this.readout.replaceChildren(head, html("table", {}, ...rows));
      const [wide, whole] = [this.readout.offsetWidth, this.plot.clientWidth];
      const left = x > whole / 2 ? x - wide - 14 : x + 14;
      this.readout.style.left = `${Math.max(0, Math.min(whole - wide, left))}px`;
    }
  }

  for (const host of document.querySelectorAll("[data-chart]")) new Chart(host, charts[host.dataset.chart]);
})();
