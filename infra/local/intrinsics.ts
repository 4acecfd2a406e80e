/** What a CloudFormation template refers to. Each answers `undefined` for what it does not know. */
export interface References {
  /** The value of a Ref: a pseudo parameter, a parameter or a resource. */
  readonly ref: (name: string) => unknown;
  readonly attribute: (logicalId: string, attribute: string) => unknown;
  /** The definition of a condition, unresolved. */
  readonly condition: (name: string) => unknown;
}

/** What Ref gives for AWS::NoValue: the property or the element is left out. */
export const noValue = Symbol('AWS::NoValue');

/** `value` with every intrinsic function replaced by its result. Throws with the path of what it cannot resolve. */
export function resolveIntrinsics(value: unknown, references: References, at: string): unknown {
  const resolve = (part: unknown, path: string) => resolveIntrinsics(part, references, path);
  if (Array.isArray(value))
    return value.map((part, index) => resolve(part, `${at}[${index}]`)).filter((part) => part !== noValue);
  if (!isObject(value)) return value;
  const [[name, argument] = ['', undefined], ...others] = Object.entries(value);
  if (others.length === 0 && (name === 'Ref' || name.startsWith('Fn::')))
    return call(name, argument, references, `${at}.${name}`);
  return Object.fromEntries(
    Object.entries(value)
      .map(([key, part]): [string, unknown] => [key, resolve(part, `${at}.${key}`)])
      .filter(([, part]) => part !== noValue),
  );
}

/** Whether the condition of this name holds. Throws with the path of what it cannot decide. */
export function holds(name: string, references: References): boolean {
  const definition = references.condition(name);
  if (definition === undefined) throw new Error(`Conditions.${name} does not exist`);
  return decide(definition, references, `Conditions.${name}`);
}

function call(name: string, argument: unknown, references: References, at: string): unknown {
  switch (name) {
    case 'Ref':
      return found(references.ref(text(argument, at)), `${text(argument, at)}`, at);
    case 'Fn::GetAtt': {
      const [logicalId, ...attribute] =
        typeof argument === 'string' ? argument.split('.') : list(argument, at);
      return attributeOf(
        text(logicalId, at),
        attribute.map((part) => text(part, at)).join('.'),
        references,
        at,
      );
    }
    case 'Fn::Join': {
      const [separator, parts] = resolvedList(argument, references, at);
      return list(parts, at)
        .map((part) => text(part, at))
        .join(text(separator, at));
    }
    case 'Fn::Split': {
      const [separator, whole] = resolvedList(argument, references, at);
      return text(whole, at).split(text(separator, at));
    }
    case 'Fn::Select': {
      const [index, parts] = resolvedList(argument, references, at);
      return found(list(parts, at)[Number(index)], `element ${String(index)}`, at);
    }
    case 'Fn::Sub':
      return substitute(argument, references, at);
    case 'Fn::If': {
      const [condition, then, otherwise] = list(argument, at);
      return holds(text(condition, at), references)
        ? resolveIntrinsics(then, references, `${at}[1]`)
        : resolveIntrinsics(otherwise, references, `${at}[2]`);
    }
    default:
      throw new Error(`${at}: ${name} is not understood here; teach it to infra/local/intrinsics.ts`);
  }
}

function substitute(argument: unknown, references: References, at: string): string {
  const [pattern, variables = {}] = Array.isArray(argument) ? argument : [argument];
  const own: unknown = resolveIntrinsics(variables, references, `${at}[1]`);
  return text(pattern, at).replaceAll(/\$\{(!?)([^}]*)\}/g, (_match, isLiteral: string, name: string) => {
    if (isLiteral !== '') return `\${${name}}`;
    if (isObject(own) && Object.hasOwn(own, name)) return text(own[name], at);
    const [logicalId = '', ...attribute] = name.split('.');
    return text(
      attribute.length === 0
        ? found(references.ref(name), name, at)
        : attributeOf(logicalId, attribute.join('.'), references, at),
      at,
    );
  });
}

function decide(definition: unknown, references: References, at: string): boolean {
  const [[name, argument] = ['', undefined]] = isObject(definition) ? Object.entries(definition) : [];
  const each = () =>
    list(argument, at).map((part, index) => decide(part, references, `${at}.${name}[${index}]`));
  switch (name) {
    case 'Condition':
      return holds(text(argument, at), references);
    case 'Fn::Equals': {
      const [left, right] = resolvedList(argument, references, `${at}.${name}`);
      return text(left, at) === text(right, at);
    }
    case 'Fn::And':
      return each().every(Boolean);
    case 'Fn::Or':
      return each().some(Boolean);
    case 'Fn::Not':
      return !each().some(Boolean);
    default:
      throw new Error(`${at}: ${name} is not understood here; teach it to infra/local/intrinsics.ts`);
  }
}

const attributeOf = (logicalId: string, attribute: string, references: References, at: string): unknown =>
  found(references.attribute(logicalId, attribute), `${logicalId}.${attribute}`, at);

const resolvedList = (argument: unknown, references: References, at: string): readonly unknown[] =>
  list(resolveIntrinsics(argument, references, at), at);

function found(value: unknown, name: string, at: string): unknown {
  if (value === undefined) throw new Error(`${at}: ${name} is not known`);
  return value;
}

function list(value: unknown, at: string): readonly unknown[] {
  if (!Array.isArray(value)) throw new Error(`${at}: got ${typeof value}, expected a list`);
  return value;
}

function text(value: unknown, at: string): string {
  if (typeof value === 'string') return value;
  if (typeof value === 'number' || typeof value === 'boolean') return String(value);
  throw new Error(`${at}: got ${typeof value}, expected a text`);
}

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
