// A leaderboard is a table with one body for each network: its row, and a row for each of its seeds. Here
// it gets buttons that sort it and a line of filters; without this script it is a table like any other.
const number = (cell) => (cell && "value" in cell.dataset ? Number(cell.dataset.value) : null);

const make = (name, attributes = {}, ...children) => {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
};

const labelled = (text, control) => make("label", {}, text + " ", control);

const liven = (board, place) => {
  const table = board.querySelector("table");
  const [groupRow, headRow] = table.tHead.rows;
  const heads = [...headRow.cells];
  const bodies = () => [...table.tBodies];
  const status = make("output", { class: "board-status", role: "status" });
  const value = (body, column) => number(body.rows[0].cells[column]);
  let order = heads.findIndex((head) => head.hasAttribute("aria-sort"));
  let words = "";

  const say = () => {
    const shown = bodies().filter((body) => !body.hidden).length;
    status.textContent = `${words} ${shown} of ${bodies().length} networks shown.`;
  };

  const sort = (column, descending) => {
    const sign = descending ? -1 : 1;
    const sorted = bodies().sort((one, other) => {
      if (column === 0) return sign * one.dataset.name.localeCompare(other.dataset.name);
      const [a, b] = [value(one, column), value(other, column)];
      if (a === null || b === null) return (a === null) - (b === null); // what is not known stands last
      return sign * (a - b);
    });
    table.append(...sorted);
    for (const head of heads) head.removeAttribute("aria-sort");
    heads[column].setAttribute("aria-sort", descending ? "descending" : "ascending");
    order = column;
    words = `Sorted by ${heads[column].textContent}, ${descending ? "highest" : "lowest"} first.`;
    choice.value = String(column);
    say();
  };

  const best = (column) => heads[column].dataset.best === "high";

  for (const [column, head] of heads.entries()) {
    const button = make("button", { type: "button" }, head.textContent);
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      sort(column, now ? now === "ascending" : best(column));
    });
  }

  const choice = make("select", { id: `order-${place}` });
  for (const [column, head] of heads.entries()) {
    if (head.dataset.ranked !== undefined) {
      choice.append(make("option", { value: column }, head.textContent));
    }
  }
  choice.addEventListener("change", () => sort(Number(choice.value), best(Number(choice.value))));

  const text = make("input", { type: "text", size: "12", autocomplete: "off" });
  const least = make("input", { type: "number", min: "0", max: "1", step: "0.01" });
  const kinds = [...new Set(bodies().map((body) => body.dataset.activation))].filter(Boolean);
  const kind = make("select", {}, make("option", { value: "" }, "any"));
  for (const name of kinds) kind.append(make("option", { value: name }, name));
  const accuracy = heads.findIndex((head) => head.textContent === "Accuracy");
  const filter = () => {
    for (const body of bodies()) {
      const wanted = body.dataset.name.includes(text.value.trim().toLowerCase());
      const alike = !kind.value || body.dataset.activation === kind.value;
      const enough = !least.value || (value(body, accuracy) ?? -1) >= Number(least.value);
      body.hidden = !(wanted && alike && enough);
    }
    say();
  };
  for (const control of [text, least, kind]) control.addEventListener("input", filter);

  const seeds = make("input", { type: "checkbox" });
  seeds.addEventListener("change", () => table.classList.toggle("with-seeds", seeds.checked));

  const groups = make("fieldset", {}, make("legend", {}, "Columns"));
  for (const head of [...groupRow.cells].slice(1)) {
    const box = make("input", { type: "checkbox" });
    box.checked = Number(head.dataset.group) < 2;
    const show = () => {
      for (const cell of table.querySelectorAll(`[data-group="${head.dataset.group}"]`)) {
        cell.hidden = !box.checked;
      }
    };
    box.addEventListener("change", show);
    show();
    groups.append(make("label", {}, box, " " + head.textContent), " ");
  }

  const line = make("div", { class: "board-tools" }, labelled("Order by", choice));
  line.append(labelled("Name has", text), labelled("Accuracy at least", least));
  if (kinds.length > 1) line.append(labelled("Activation", kind));
  line.append(make("label", {}, seeds, " Single seeds"), groups, status);
  board.prepend(line);
  board.classList.add("live");
  if (order >= 0) sort(order, best(order));
};

window.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll(".leaderboard").forEach(liven);
});
