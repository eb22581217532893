// Differences by class of two backbones that the reader chooses; sections/classes.py says how they are tested.
(() => {
  "use strict";
  const MOST_ROWS = 40; // of the figure; the table has every class
  const Z = 1.959963984540054;
  const form = document.getElementById("classes-pair");
  const figure = document.getElementById("chart-classes");
  const { columns, alpha } = window.readData("classes");
  const empty = JSON.parse(figure.querySelector("script[type='application/json']").textContent).views[0];

  const bytesOf = (text) => Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));

  function labelsOf(column) {
    const bytes = bytesOf(column.labels);
    const view = new DataView(bytes.buffer);
    const read = column.width === 2 ? (at) => view.getUint16(2 * at, true) : (at) => view.getUint32(4 * at, true);
    return Array.from({ length: bytes.length / column.width }, (_, place) => read(place));
  }

  const isRight = (bits, place) => (bits[place >> 3] >> (7 - (place & 7))) & 1;

  // By class: n samples, how many each has right, and how many only one of them has right.
  function countClasses(column, first, second) {
    const counts = column.classes.map((name) => ({ name, n: 0, first: 0, second: 0, onlyFirst: 0, onlySecond: 0 }));
    const [a, b] = [bytesOf(column.right[first]), bytesOf(column.right[second])];
    labelsOf(column).forEach((label, place) => {
      const [one, other] = [isRight(a, place), isRight(b, place)];
      const count = counts[label];
      count.n += 1;
      count.first += one;
      count.second += other;
      count.onlyFirst += one & ~other & 1;
      count.onlySecond += other & ~one & 1;
    });
    return counts;
  }

  // McNemar's exact test: two-sided, of `only` heads in that many fair tosses.
  function mcnemar(onlyFirst, onlySecond) {
    const tosses = onlyFirst + onlySecond;
    const fewer = Math.min(onlyFirst, onlySecond);
    let logarithm = -tosses * Math.LN2; // of the probability of no head
    let tail = 0;
    for (let heads = 0; heads <= fewer; heads += 1) {
      tail += Math.exp(logarithm);
      logarithm += Math.log((tosses - heads) / (heads + 1));
    }
    return Math.min(1, 2 * tail);
  }

  // Bonett & Price's interval of the difference, in percentage points.
  function interval({ n, onlyFirst, onlySecond }) {
    const [b, c] = [(onlyFirst + 1) / (n + 2), (onlySecond + 1) / (n + 2)];
    const half = Z * Math.sqrt(Math.max(b + c - (c - b) ** 2, 0) / (n + 2));
    return [100 * Math.max(c - b - half, -1), 100 * Math.min(c - b + half, 1)];
  }

  // Holm's correction: the smallest of m p-values times m, the next times m - 1, never falling.
  function holm(values) {
    const order = values.map((_, place) => place).sort((one, other) => values[one] - values[other]);
    const corrected = new Array(values.length);
    let highest = 0;
    order.forEach((place, rank) => {
      highest = Math.max(highest, Math.min(1, values[place] * (values.length - rank)));
      corrected[place] = highest;
    });
    return corrected;
  }

  function compare(column, first, second) {
    const counts = countClasses(column, first, second);
    const corrected = holm(counts.map(({ onlyFirst, onlySecond }) => mcnemar(onlyFirst, onlySecond)));
    const rows = counts.map((count, place) => {
      const [low, high] = interval(count);
      const difference = (100 * (count.onlySecond - count.onlyFirst)) / count.n;
      return { ...count, difference, low, high, p: corrected[place] };
    });
    return rows.sort((one, other) => other.difference - one.difference || other.n - one.n);
  }

  const few = (names) => names.slice(0, 5).join(", ") + (names.length > 5 ? ` and ${names.length - 5} more` : "");

  function summarise(rows, [first, second]) {
    const told = rows.filter((row) => row.p < alpha);
    const better = (name, sign) => {
      const classes = told.filter((row) => sign * row.difference > 0).map((row) => row.name);
      return classes.length ? `${name} is better in ${classes.length} (${few(classes)})` : `${name} is better in none`;
    };
    const samples = rows.reduce((sum, row) => sum + row.n, 0);
    const sentences = [
      `Of ${rows.length} classes (${samples} samples), ${better(second, 1)}, and ${better(first, -1)}`,
      ...[[first, "first", "second"], [second, "second", "first"]].map(([name, has, lacks]) => {
        const only = rows.filter((row) => row[has] > 0 && row[lacks] === 0).map((row) => row.name);
        return only.length ? `Only ${name} gets any sample right of: ${few(only)}` : "";
      }),
    ];
    return `${sentences.filter(Boolean).join(". ")}.`;
  }

  const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const short = (text) => window.reportCharts.shortened(escaped(text), 26);
  const round = (value, digits) => Number(value.toFixed(digits));
  const percent = (right, n) => round((100 * right) / n, 1);

  function viewOf(rows, names) {
    const half = MOST_ROWS / 2;
    const drawn = rows.length <= MOST_ROWS ? rows : [...rows.slice(0, half), ...rows.slice(-half)];
    const told = (row) => row.p < alpha;
    const trace = {
      ...empty.data[0],
      x: drawn.map((row) => round(row.difference, 2)),
      y: drawn.map((_, place) => place),
      error_x: {
        ...empty.data[0].error_x,
        array: drawn.map((row) => round(row.high - row.difference, 2)),
        arrayminus: drawn.map((row) => round(row.difference - row.low, 2)),
      },
      marker: { ...empty.data[0].marker, symbol: drawn.map((row) => (told(row) ? "diamond" : "circle-open")) },
      text: drawn.map(
        (row) =>
          `${escaped(row.name)}: ${row.first} and ${row.second} of ${row.n} right, difference ` +
          `${row.difference.toFixed(1)} points, 95 % interval ${row.low.toFixed(1)} to ${row.high.toFixed(1)}, ` +
          `p = ${row.p.toPrecision(2)}`,
      ),
    };
    const layout = {
      ...empty.layout,
      height: 90 + 22 * Math.max(drawn.length, 4),
      yaxis: {
        ...empty.layout.yaxis,
        tickvals: trace.y,
        ticktext: drawn.map((row) => short(row.name)),
        range: [drawn.length - 0.5, -0.5],
      },
    };
    const cut = drawn.length < rows.length ? ` The figure has the ${half} largest differences either way.` : "";
    return {
      name: "",
      data: [trace],
      layout,
      summary: `${summarise(rows, names)} Filled diamonds are the differences that are clear.${cut}`,
      head: empty.head.map((title) => title.replace("first", names[0]).replace("second", names[1])),
      rows: rows.map((row) => [
        row.name,
        row.n,
        percent(row.first, row.n),
        percent(row.second, row.n),
        round(row.difference, 1),
        round(row.low, 1),
        round(row.high, 1),
        Number(row.p.toPrecision(3)),
      ]),
    };
  }

  function choose(select, names, chosen) {
    const options = names.map((name, place) => new Option(name, place, false, place === chosen));
    select.replaceChildren(...options);
  }

  const chosenColumn = () => columns[Number(form.elements.column?.value ?? 0)];

  function update() {
    const column = chosenColumn();
    const pair = [Number(form.elements.first.value), Number(form.elements.second.value)];
    const names = pair.map((place) => column.names[place]);
    window.reportCharts.replace(figure, viewOf(compare(column, ...pair), names));
  }

  form.addEventListener("change", (event) => {
    if (event.target.name === "column") {
      choose(form.elements.first, chosenColumn().names, 1);
      choose(form.elements.second, chosenColumn().names, 0);
    }
    update();
  });
  form.elements.swap.addEventListener("click", () => {
    const { first, second } = form.elements;
    [first.value, second.value] = [second.value, first.value];
    update();
  });
  update();
})();
