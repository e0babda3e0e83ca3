// The backend's evaluator, as its public source has it: calls of four methods become names with ready answers, and
// cel-js evaluates the rest. Its order of rules, too. One JSON document a line: a question in, an answer out.
//
// {"condition": "…", "contexts": [{…}]}        -> [true, false, "error: …", "value: …"]
// {"rules": [{"id": "…", "priority": 1}]}      -> the ids in the order of evaluation
import { createInterface } from 'node:readline';
import { evaluate, parse } from 'cel-js';

const CALL = /(\w+)\.(contains|startsWith|endsWith|matches)\s*\(\s*"((?:\\.|[^"\\])*)"\s*\)/g;
const METHODS = {
  contains: (text, part) => text.includes(part),
  startsWith: (text, part) => text.startsWith(part),
  endsWith: (text, part) => text.endsWith(part),
  matches: (text, pattern) => new RegExp(pattern).test(text),
};

const read = { text: null, result: null }; // what was read last: it is the same for each context

function readOnce(text) {
  if (read.text !== text) Object.assign(read, { text, result: parse(text) });
  if (!read.result.isSuccess) throw new Error(read.result.errors[0]);
  return read.result.cst;
}

function answer(condition, context) {
  const known = { ...context };
  let number = 0;
  try {
    const rest = condition.replace(CALL, (call, field, method, argument) => {
      if (typeof context[field] !== 'string') return call;
      const name = `_method_${number++}`;
      known[name] = METHODS[method](context[field], argument.replace(/\\\\/g, '\\').replace(/\\"/g, '"'));
      return name;
    });
    const value = evaluate(readOnce(rest), known);
    return typeof value === 'boolean' ? value : `value: ${JSON.stringify(value)}`;
  } catch (error) {
    return `error: ${error.message}`;
  }
}

function compare(one, other) {
  return one < other ? -1 : one > other ? 1 : 0;
}

function order(rules) {
  const byPriority = (one, other) =>
    other.priority - one.priority ||
    compare(one.id.toUpperCase(), other.id.toUpperCase()) ||
    compare(other.id, one.id);
  return Object.keys(Object.fromEntries([...rules].sort(byPriority).map((rule) => [rule.id, rule])));
}

for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  const question = JSON.parse(line);
  const found = question.rules
    ? order(question.rules)
    : question.contexts.map((context) => answer(question.condition, context));
  process.stdout.write(`${JSON.stringify(found)}\n`);
}
