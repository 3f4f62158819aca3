"use strict";
// The page is complete without this: it adds sorting by column and filtering by name.

// The key of a cell: a number if it looks like one, else its text. Shapes count as their number of elements; "–" is last.
function key(cell) {
  const text = cell.dataset.v ?? cell.textContent;
  if (text === "–" || text === "") return null;
  if (text === "∞") return Infinity;
  if (text === "-∞") return -Infinity;
  if (/^\d+(×\d+)*$/.test(text)) return text.split("×").reduce((product, n) => product * Number(n), 1);
  const number = Number(text.replace(/×$/, ""));
  return Number.isNaN(number) ? text : number;
}

function compare(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null);
  if (typeof a === typeof b) return sign * (typeof a === "number" ? (a > b) - (a < b) : a.localeCompare(b, "en", { numeric: true }));
  return typeof a === "number" ? -1 : 1;
}

function sort(table, head) {
  const column = head.cellIndex;
  const rows = Array.from(table.tBodies[0].rows, (row) => ({ row, key: key(row.cells[column]) }));
  const isText = rows.some((r) => typeof r.key === "string");
  const now = head.getAttribute("aria-sort");
  const ascending = now ? now === "descending" : isText;
  rows.sort((a, b) => compare(a.key, b.key, ascending ? 1 : -1));
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const sorted = document.createDocumentFragment();
  for (const { row } of rows) sorted.append(row);
  table.tBodies[0].append(sorted);
}

function addButtons(table) {
  for (const head of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(table, head));
    head.append(button);
  }
}

function addFilter(table) {
  const label = document.createElement("label");
  const input = document.createElement("input");
  label.className = "filter";
  label.append("Only names with", input);
  input.type = "search";
  input.addEventListener("input", () => {
    const wanted = input.value.toLowerCase();
    for (const row of table.tBodies[0].rows) row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
  });
  table.parentElement.before(label);
}

// A link to a closed section opens it.
function open() {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (target instanceof HTMLDetailsElement) target.open = true;
}

document.querySelectorAll("table.sortable").forEach(addButtons);
document.querySelectorAll("table.tensors").forEach(addFilter);
addEventListener("hashchange", open);
open();
