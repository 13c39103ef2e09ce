// The rules by which thresholds were chosen (hemoscope/evaluation/threshold_rules.py), in words.

const SHARES = { sensitivity: "sensitivity", specificity: "specificity", precision: "precision" };
const NOT_BELOW_ANY = ", not below any";

const whole = (text) => `${Number((Number(text) * 100).toFixed(1))}%`;

function words(rule) {
  const [, name, target] = /^([a-z-]+)(?:(?: >=)? ([0-9.eE+-]+))?$/.exec(rule) ?? [];
  if (name === "youden") return "chosen for the highest sum of sensitivity and specificity";
  if (name === "f-beta" && target) return `chosen for the highest F-score (beta ${target})`;
  if (Object.hasOwn(SHARES, name ?? "") && target) return `chosen for a ${SHARES[name]} of at least ${whole(target)}`;
  return null;
}

/** "chosen for a sensitivity of at least 90%"; a rule of the model's maker is quoted as it stands. */
export function ruleWords(rule) {
  const known = words(rule.replace(NOT_BELOW_ANY, ""));
  if (!known) return `chosen by the rule “${rule}”`;
  return rule.endsWith(NOT_BELOW_ANY) ? `${known}, not below that of any hemorrhage` : known;
}
