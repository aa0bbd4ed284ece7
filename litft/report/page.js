"use strict";
// Draws the charts of a report with uPlot, and turns the pages of its answers. Asks for nothing outside the page.
(() => {
  const root = document.documentElement;
  root.classList.add("scripted");
  const numbers = JSON.parse(document.querySelector("[data-numbers]").textContent);
  const figures = [...document.querySelectorAll("figure[data-chart]")];
  const hidden = new Set();
  let axis = "step", logarithmic = document.querySelector("[data-log]")?.checked, plots = [];

  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 2 });
  const plain = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });
  const forms = {
    number: (value) => (value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential(1) : plain.format(value)),
    share: (value) => `${+(100 * value).toPrecision(3)}%`,
    rate: (value) => (value === 0 ? "0" : +value.toPrecision(3) < 1e-3 ? (+value.toPrecision(3)).toExponential() : plain.format(value)),
    count: (value) => Math.round(value).toLocaleString("en"),
    bytes: (value) => (value >= 1e9 ? `${+(value / 1e9).toFixed(2)} GB` : `${+(value / 1e6).toFixed(1)} MB`),
  };
  const part = (series) => numbers.runs[series.run][series.part];

  // From the first to the last point of all charts, so that what lies above one another happened together.
  function whole() {
    const ends = numbers.charts.flatMap((chart) => chart.series.map((series) => part(series)[axis])).filter((x) => x.length);
    const from = Math.min(...ends.map((x) => x[0])), to = Math.max(...ends.map((x) => x[x.length - 1]));
    return from < to ? [from, to] : [from - 1, to + 1];
  }

  function look(series, form) {
    const name = `--c${series.colour % 10}`, isPoints = series.look === "points", isEdge = series.look === "low" || series.look === "high";
    const stroke = isEdge ? "transparent" : series.look === "faint" ? `${colour(name)}59` : colour(name);
    return {
      label: series.label, stroke, width: series.look === "faint" ? 1 : 2, spanGaps: true, show: !hidden.has(series.key),
      dash: series.colour >= 10 ? [6, 4] : undefined,
      points: { show: isPoints || part(series).step.length === 1, size: 6, fill: stroke },
    };
  }

  // Between two lines below an axis: no step is half a step.
  const wholeNumbers = Array.from({ length: 13 }, (_, power) => [1, 2, 5].map((digit) => digit * 10 ** power)).flat();

  // Few lines of a logarithmic axis: whole powers of ten, and 2 and 5 between them where there are not many.
  function powers(_, __, min, max) {
    const from = Math.floor(Math.log10(min)), to = Math.ceil(Math.log10(max));
    const found = (steps) => Array.from({ length: to - from + 1 }, (_, at) => steps.map((step) => step * 10 ** (from + at))).flat();
    const within = (ticks) => ticks.map((tick) => +tick.toPrecision(3)).filter((tick) => tick >= min && tick <= max);
    return within(found([1])).length > 2 ? within(found([1])) : within(found([1, 2, 5]));
  }

  function draw(figure) {
    const chart = numbers.charts[figure.dataset.chart], place = figure.querySelector(".plot");
    const data = uPlot.join(chart.series.map((series) => [part(series)[axis], part(series)[series.column]]));
    const edges = ["high", "low"].map((side) => chart.series.findIndex((series) => series.look === side) + 1);
    const [min, max] = whole(), line = { stroke: colour("--line"), width: 1 }, form = chart.form === "count" ? (value) => compact.format(value) : forms[chart.form];
    const isLog = logarithmic && chart.can_log && data.slice(1).every((values) => values.every((value) => value == null || value > 0));
    const fromZero = (_, low, high) => [Math.min(low ?? 0, 0), (high || 1) * 1.08];
    const share = (_, low, high) => { const room = Math.max((high - low) * 0.08, 0.01); return [Math.max(low - room, 0), Math.min(high + room, 1)]; };
    const plot = new uPlot({
      width: place.clientWidth, height: place.clientHeight,
      scales: { x: { time: false, min, max }, y: isLog ? { distr: 3, range: (_, low, high) => [low / 1.3, high * 1.3] } : chart.from_zero ? { range: fromZero } : chart.form === "share" ? { range: share } : {} },
      axes: [
        { stroke: colour("--soft"), grid: line, ticks: line, font: "12px system-ui, sans-serif", incrs: wholeNumbers, values: (_, ticks) => ticks.map((tick) => compact.format(tick)) },
        { stroke: colour("--soft"), grid: line, ticks: line, font: "12px system-ui, sans-serif", size: 62, ...(isLog ? { splits: powers, filter: (_, ticks) => ticks } : {}), values: (_, ticks) => ticks.map((tick) => (tick == null ? "" : form(tick))) },
      ],
      series: [{}, ...chart.series.map(look)],
      bands: edges[0] ? [{ series: edges, fill: `${colour(`--c${chart.series[edges[0] - 1].colour % 10}`)}2e` }] : [],
      legend: { show: false },
      cursor: {
        sync: { key: "report" }, y: false, points: { size: 7 }, drag: { x: true, y: false, setScale: false },
        bind: { dblclick: () => () => { zoom(null); return null; } },
      },
      hooks: {
        setCursor: [(self) => tell(figure, chart, self)],
        setSelect: [(self) => {
          const { left, width } = self.select;
          if (width > 4) zoom([self.posToVal(left, "x"), self.posToVal(left + width, "x")]);
          self.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
        }],
      },
    }, data, place);
    plot.over.addEventListener("touchmove", (event) => {
      const box = plot.over.getBoundingClientRect(), touch = event.touches[0];
      plot.setCursor({ left: touch.clientX - box.left, top: touch.clientY - box.top });
    }, { passive: true });
    return plot;
  }

  // The value of each line at the cursor, or at its last point before it.
  function tell(figure, chart, plot) {
    const place = plot.cursor.idx, buttons = figure.querySelectorAll(".keys button");
    let button = 0;
    const said = [];
    chart.series.forEach((series, number) => {
      if (!series.label) return;
      const values = plot.data[number + 1];
      let at = place == null ? values.length - 1 : place;
      while (at >= 0 && values[at] == null) at--;
      const text = at < 0 ? "-" : forms[chart.form](values[at]);
      buttons[button++].querySelector("b").textContent = text;
      if (!hidden.has(series.key)) said.push(`${series.label} ${text}`);
    });
    const where = place == null ? "" : `${axis === "step" ? "step" : "tokens"} ${plot.data[0][place].toLocaleString("en")}`;
    figure.querySelector(".read").textContent = where && document.activeElement === figure.querySelector(".plot") ? `${where}: ${said.join(", ")}` : where;
  }

  function zoom(range) {
    const [min, max] = range || whole();
    for (const plot of plots) plot.setScale("x", { min, max });
    document.querySelector("[data-all]").disabled = !range;
  }

  function drawAll() {
    for (const plot of plots) plot.destroy();
    plots = figures.map(draw);
    document.querySelector("[data-all]").disabled = true;
  }

  function press(event, plot) {
    const x = plot.data[0], from = plot.cursor.idx ?? x.length, stride = event.shiftKey ? 10 : 1;
    const { min, max } = plot.scales.x, middle = plot.cursor.idx == null ? (min + max) / 2 : x[plot.cursor.idx];
    const moves = { ArrowLeft: from - stride, ArrowRight: from + stride, Home: 0, End: x.length - 1 };
    if (event.key in moves) {
      const at = Math.max(0, Math.min(x.length - 1, moves[event.key]));
      if (x[at] < min || x[at] > max) zoom([x[at] - (max - min) / 2, x[at] + (max - min) / 2]);
      plot.setCursor({ left: plot.valToPos(x[at], "x"), top: 1 });
    } else if (event.key === "+" || event.key === "=") zoom([middle - (middle - min) / 2, middle + (max - middle) / 2]);
    else if (event.key === "-") zoom([middle - 2 * (middle - min), middle + 2 * (max - middle)]);
    else if (event.key === "Escape") zoom(null);
    else return;
    event.preventDefault();
  }

  function toggle(key) {
    if (!hidden.delete(key)) hidden.add(key);
    for (const button of document.querySelectorAll("button[data-key]")) {
      if (button.dataset.key === key) button.setAttribute("aria-pressed", String(!hidden.has(key)));
    }
    plots.forEach((plot, number) => numbers.charts[number].series.forEach((series, at) => {
      if (series.key === key) plot.setSeries(at + 1, { show: !hidden.has(key) });
    }));
  }

  if (figures.length) {
    figures.forEach((figure, number) => figure.querySelector(".plot").addEventListener("keydown", (event) => press(event, plots[number])));
    for (const button of document.querySelectorAll("button[data-key]")) button.addEventListener("click", () => toggle(button.dataset.key));
    for (const choice of document.querySelectorAll("input[name=axis]")) choice.addEventListener("change", () => { axis = choice.value; drawAll(); });
    document.querySelector("[data-log]").addEventListener("change", (event) => { logarithmic = event.target.checked; drawAll(); });
    document.querySelector("[data-all]").addEventListener("click", () => zoom(null));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
    drawAll();
    new ResizeObserver(() => plots.forEach((plot, number) => {
      const place = figures[number].querySelector(".plot");
      if (place.clientWidth && place.clientWidth !== plot.width) plot.setSize({ width: place.clientWidth, height: place.clientHeight });
    })).observe(document.querySelector("main"));
  }

  for (const answers of document.querySelectorAll(".answers")) {
    const slider = answers.querySelector("input[type=range]"), name = answers.querySelector("output");
    if (!slider) continue;
    const labels = JSON.parse(slider.dataset.labels);
    const turn = () => {
      for (const frame of answers.querySelectorAll("[data-frame]")) frame.hidden = frame.dataset.frame !== slider.value;
      name.textContent = labels[slider.value];
      slider.setAttribute("aria-valuetext", labels[slider.value]);
    };
    slider.addEventListener("input", turn);
    for (const button of answers.querySelectorAll("button[data-by]")) {
      button.addEventListener("click", () => { slider.stepUp(Number(button.dataset.by)); turn(); });
    }
    turn();
  }
})();
