// Draws the charts of reports/charts.py: each when it comes into view, in the colours of the page's theme.
// Plotly lies compressed in the page and is unpacked for the first of them.
(() => {
  "use strict";
  const CONFIG = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["select2d", "lasso2d"] };
  const CANNOT = "This browser cannot draw the chart; the table below has its numbers.";
  const charts = new Map(); // figure element -> {views, shown, drawn}
  let library = null;

  function loadLibrary() {
    library ??= (async () => {
      const bytes = Uint8Array.from(atob(window.packedPlotly), (sign) => sign.charCodeAt(0));
      window.packedPlotly = null;
      const unpacked = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
      const script = document.createElement("script");
      script.textContent = await new Response(unpacked).text();
      document.head.append(script);
      return window.Plotly;
    })();
    return library;
  }

  // A figure with every "var(--name)" replaced by the colour that it has now.
  function coloured(content, probe) {
    if (typeof content === "string" && content.startsWith("var(--")) {
      probe.style.color = content;
      return getComputedStyle(probe).color;
    }
    if (Array.isArray(content)) return content.map((item) => coloured(item, probe));
    if (content === null || typeof content !== "object") return content;
    return Object.fromEntries(Object.entries(content).map(([key, item]) => [key, coloured(item, probe)]));
  }

  // On a narrow page names of rows leave no place for the figure, and a bar of buttons covers it.
  function fitted(view, place, height) {
    const narrow = place.clientWidth < 520;
    const { data, layout } = structuredClone({ data: view.data, layout: view.layout });
    layout.height = layout.height ?? height;
    if (narrow) {
      layout.font.size = 11;
      for (const axis of [layout.xaxis, layout.yaxis]) {
        axis.title.font.size = 11;
        axis.ticktext = axis.ticktext?.map((text) => shortened(text, 14));
      }
      if (data[0]?.type === "heatmap") {
        data[0].showscale = false;
        layout.height = Math.min(layout.height, place.clientWidth);
      }
    }
    return { data, layout, config: { ...CONFIG, displayModeBar: narrow ? false : "hover" } };
  }

  // At most so many signs of an escaped text, of which `&lt;` is one; the middle is left out.
  function shortened(text, most) {
    const signs = text.match(/&(?:amp|lt|gt);|./gsu) ?? [];
    if (signs.length <= most) return text;
    const tail = Math.floor(most / 3);
    return `${signs.slice(0, most - 1 - tail).join("")}…${signs.slice(-tail).join("")}`;
  }

  async function draw(figure) {
    const chart = charts.get(figure);
    const place = figure.querySelector(".chart-plot");
    chart.drawn = true;
    chart.point = null;
    let Plotly;
    try {
      Plotly = await loadLibrary();
    } catch {
      place.textContent = CANNOT;
      place.classList.add("chart-plain");
      place.style.height = "auto";
      return;
    }
    const probe = document.createElement("span");
    place.before(probe);
    const view = chart.views[chart.shown];
    const { data, layout, config } = fitted(view, place, chart.height);
    const ready = coloured({ data, layout }, probe);
    probe.remove();
    place.style.height = "";
    await Plotly.react(place, ready.data, ready.layout, config);
    figure.dataset.drawn = String(chart.shown);
  }

  function show(figure, number) {
    const chart = charts.get(figure);
    const view = chart.views[number];
    chart.shown = number;
    figure.querySelector(".chart-summary").textContent = view.summary;
    figure.querySelector(".chart-point").textContent = "";
    fillTable(figure);
    if (chart.drawn) draw(figure);
  }

  function fillTable(figure) {
    const { views, shown } = charts.get(figure);
    const place = figure.querySelector(".chart-table");
    place.replaceChildren();
    if (!figure.querySelector("details").open) return;
    const table = document.createElement("table");
    const head = table.createTHead().insertRow();
    for (const title of views[shown].head) {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.textContent = title;
      head.append(cell);
    }
    const body = table.createTBody();
    for (const row of views[shown].rows) {
      const line = body.insertRow();
      for (const value of row) {
        const cell = line.insertCell();
        cell.textContent = value === null ? "not measured" : String(value);
        if (typeof value === "number") cell.className = "number";
      }
    }
    place.append(table);
  }

  // Arrow keys go from point to point, and up and down from line to line; a line of text says where one is.
  function step(figure, key) {
    const place = figure.querySelector(".chart-plot");
    const chart = charts.get(figure);
    const lines = place.data ?? [];
    if (!lines.length) return;
    const isMatrix = lines[0].type === "heatmap";
    const size = (curve) => (isMatrix ? lines[0].z.length : lines[curve].x.length);
    const rows = isMatrix ? lines[0].z.length : lines.length;
    let { row, column } = chart.point ?? { row: 0, column: -1 };
    const [down, right] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[key];
    row = Math.min(Math.max(row + down, 0), rows - 1);
    column = Math.min(Math.max(column + right, 0), size(isMatrix ? 0 : row) - 1);
    chart.point = { row, column };
    const number = isMatrix ? [row, column] : column;
    try {
      window.Plotly.Fx.hover(place, [{ curveNumber: isMatrix ? 0 : row, pointNumber: number }]);
    } catch {
      // A point outside the figure has no hover; the text below says it all the same.
    }
    figure.querySelector(".chart-point").textContent = pointText(place, lines, row, column, isMatrix);
  }

  const unescaped = (text) => new DOMParser().parseFromString(text, "text/html").body.textContent;

  function pointText(place, lines, row, column, isMatrix) {
    const [x, y] = [place.layout.xaxis, place.layout.yaxis];
    if (isMatrix) {
      const [share, count] = [lines[0].z[row][column], lines[0].customdata[row][column]];
      return unescaped(`${y.ticktext[row]} → ${x.ticktext[column]}: ${share} % (${count} samples)`);
    }
    const line = lines[row];
    const name = lines.length > 1 ? `${line.name}: ` : "";
    const note = line.text?.[column];
    if (note) return unescaped(`${name}${note}`);
    const told = (value) => value ?? "not measured";
    return unescaped(`${name}${x.title?.text ?? ""} ${told(line.x[column])}, ${y.title?.text ?? ""} ${told(line.y[column])}`);
  }

  function redrawAll() {
    for (const [figure, chart] of charts) if (chart.drawn) draw(figure);
  }

  function start(figure, views) {
    const height = parseInt(figure.querySelector(".chart-plot").style.height, 10);
    charts.set(figure, { views, shown: 0, drawn: false, point: null, height });
    figure.querySelector("details").addEventListener("toggle", () => fillTable(figure));
    figure.querySelector(".chart-choice select")?.addEventListener("change", (event) => {
      choose(figure, event.target.selectedOptions[0].textContent);
    });
    figure.querySelector(".chart-plot").addEventListener("keydown", (event) => {
      if (!event.key.startsWith("Arrow") || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      step(figure, event.key);
    });
  }

  // What is chosen in one chart is shown in all of its section that have it.
  function choose(figure, name) {
    for (const other of figure.closest("section").querySelectorAll("[data-chart]")) {
      const number = charts.get(other).views.findIndex((view) => view.name === name);
      const select = other.querySelector(".chart-choice select");
      if (number < 0 || !select) continue;
      select.value = String(number);
      show(other, number);
    }
  }

  // Other scripts of the page put a new view into a chart by this, and ask for the one that is shown.
  window.reportCharts = {
    shortened,
    replace(figure, view) {
      charts.get(figure).views = [view];
      show(figure, 0);
    },
    shown(id) {
      const { views, shown } = charts.get(document.getElementById(id));
      return views[shown];
    },
  };

  const seen = new IntersectionObserver(
    (entries) => {
      for (const entry of entries.filter((one) => one.isIntersecting)) {
        seen.unobserve(entry.target);
        draw(entry.target);
      }
    },
    { rootMargin: "300px" },
  );
  for (const figure of document.querySelectorAll("[data-chart]")) {
    start(figure, JSON.parse(figure.querySelector("script[type='application/json']").textContent).views);
    seen.observe(figure);
  }
  document.addEventListener("themechange", redrawAll);
  // A figure that nobody has scrolled to is not on paper; its table is.
  addEventListener("beforeprint", () => {
    for (const [figure, chart] of charts) {
      if (chart.drawn) continue;
      figure.querySelector("details").open = true;
      fillTable(figure);
    }
  });
})();
