"use strict";
// Draws charts with uPlot, from the API. The SVG of the server stays where there is none to draw.
(() => {
  if (!window.uPlot) return;
  const root = document.body.dataset.root || "";
  const GAP = 10000;
  const plots = new Map();
  let readAt = 0;

  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const duration = (value) => {
    if (value === null || value === undefined) return "-";
    if (value === 0) return "0";
    if (value < 0.001) return `${Math.round(value * 1e6)} µs`;
    if (value < 1) return `${+(value * 1000).toPrecision(3)} ms`;
    return value < 120 ? `${+value.toPrecision(3)} s` : value < 7200 ? `${Math.round(value / 60)} min` : `${+(value / 3600).toPrecision(3)} h`;
  };
  const number = (value) => (value ?? 0).toLocaleString("en");
  const bars = uPlot.paths.bars({ size: [0.8], gap: 1, radius: [0.12, 0] });
  // A line has no length where its neighbours are missing: a point shows the value.
  const lone = (chart, series) => {
    const values = chart.data[series];
    return values.flatMap((value, at) => (value !== null && (values[at - 1] ?? null) === null && (values[at + 1] ?? null) === null ? [at] : []));
  };
  const times = (points) => points.map((point) => Date.parse(point.at) / 1000);
  const column = (points, name) => points.map((point) => point[name]);
  const bar = (name) => ({ fill: color(name), stroke: color(name), width: 0, paths: bars, points: { show: false } });
  const line = (name, dash) => ({ stroke: color(name), width: 1.5, dash, points: { show: true, filter: lone, size: 6, fill: color(name) } });

  // Each kind: the columns of an answer, the series, the words for one point, the numbers of the axis.
  const KINDS = {
    rates: {
      isBars: true,
      data: ({ rates }) => [times(rates), column(rates, "ended"), rates.map((rate) => rate.ended - rate.failed)],
      series: () => [bar("chart-2"), bar("chart-1")],
      words: ([, ended, rest]) => `${number(rest)} succeeded or cancelled, ${number(ended - rest)} failed`,
      label: number,
    },
    counts: {
      isBars: true,
      data: ({ points }) => [times(points), column(points, "count")],
      series: () => [bar("chart-1")],
      words: ([, count]) => number(count),
      label: number,
    },
    durations: {
      data: (answer, part) => ["at", "p50", "p95", "p99"].map((name) => (name === "at" ? times : (points) => column(points, name))(answer[part])),
      series: () => [line("chart-1"), line("warn", [5, 3]), line("chart-2", [2, 3])],
      words: ([, p50, p95, p99]) => `p50 ${duration(p50)}, p95 ${duration(p95)}, p99 ${duration(p99)}`,
      label: duration,
    },
  };

  const draw = (element, kind, data) => {
    const tip = document.createElement("div");
    tip.className = "tip";
    const axis = { stroke: color("muted"), grid: { stroke: color("grid"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    const scale = (chart, low, high) => [0, high > 0 ? high * 1.05 : 1];
    const [first, second] = data[0];
    const half = kind.isBars ? (second - first) / 2 || 30 : 0;
    const room = (chart, low, high) => [low - half, high + half];
    const plot = new uPlot({
      width: element.clientWidth, height: element.clientHeight,
      tzDate: (at) => uPlot.tzDate(new Date(at * 1000), "Etc/UTC"),
      legend: { show: false },
      padding: [10, 18, 0, 0],
      cursor: { y: false, points: { show: false }, drag: { setScale: false, x: false } },
      scales: { x: { range: room }, y: { range: scale } },
      axes: [
        { ...axis, size: 26, space: 90, values: "{HH}:{mm}" },
        { ...axis, size: 58, space: 40, values: (chart, values) => values.map((value) => (kind.label === number && value % 1 ? "" : kind.label(value))) },
      ],
      series: [{}, ...kind.series()],
      hooks: {
        setCursor: [(chart) => {
          const at = chart.cursor.idx;
          const moment = at === null || at === undefined ? null : new Date(chart.data[0][at] * 1000).toISOString();
          tip.textContent = moment ? `${moment.slice(0, 10)} ${moment.slice(11, 16)} UTC: ${kind.words(chart.data.map((values) => values[at]))}` : "";
        }],
      },
    }, data, element);
    element.append(tip);
    return plot;
  };

  const show = (element, answer) => {
    const kind = KINDS[element.dataset.plot];
    const data = kind.data(answer, element.dataset.part || "points");
    const hasValues = data.slice(1).some((values) => values.some(Boolean));
    const box = element.closest("[data-drawn]");
    if (box) box.hidden = !hasValues;
    if (!hasValues) { plots.get(element)?.destroy(); plots.delete(element); element.replaceChildren(); delete element.dataset.on; return; }
    const plot = plots.get(element);
    if (plot) { plot.setData(data); return; }
    element.replaceChildren();
    element.dataset.on = "";
    plots.set(element, draw(element, kind, data));
    sizes.observe(element);
  };
  const sizes = new ResizeObserver((entries) => {
    for (const { target, contentRect } of entries) {
      if (contentRect.width) plots.get(target)?.setSize({ width: contentRect.width, height: contentRect.height });
    }
  });

  const read = async () => {
    readAt = performance.now();
    for (const [element, plot] of plots) if (!element.isConnected) { plot.destroy(); plots.delete(element); }
    const bySource = new Map();
    for (const element of document.querySelectorAll("[data-plot]")) {
      const { source } = element.dataset;
      bySource.set(source, [...(bySource.get(source) || []), element]);
    }
    for (const [source, elements] of bySource) {
      try {
        const answer = await fetch(root + source);
        if (!answer.ok) continue;
        const value = await answer.json();
        for (const element of elements) show(element, value);
      } catch (error) { if (error.name !== "TypeError") throw error; /* the server does not answer */ }
    }
  };
  document.addEventListener("mrq:read", () => { if (performance.now() - readAt > GAP) read(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const plot of plots.values()) plot.destroy();
    plots.clear();
    read();
  });
  read();
})();
