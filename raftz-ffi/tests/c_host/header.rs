//! What `include/raftz.h` declares, read from its text: functions with their parameters and what their
//! documentation promises, structs with their fields, and numbers.

use std::collections::BTreeMap;

/// A value of C: of a parameter, a field or a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Typed {
    /// The type without `struct`, `union`, `const` and stars.
    pub(crate) base: String,
    pub(crate) stars: usize,
    pub(crate) is_const: bool,
    pub(crate) name: String,
    /// Of an array; else 1.
    pub(crate) count: usize,
}

/// A function and its documentation.
#[derive(Clone, Debug)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) result: Typed,
    pub(crate) parameters: Vec<Typed>,
    /// The lines of its comment, in one.
    pub(crate) words: String,
}

impl Function {
    /// What is said of a parameter.
    pub(crate) fn words_of(&self, parameter: &str) -> &str {
        let start = format!("\\param {parameter} ");
        let Some((_, after)) = self.words.split_once(&start) else { return "" };
        let end = after.find("\\param ").or_else(|| after.find("\\return")).unwrap_or(after.len());
        &after[..end]
    }

    /// What it may return.
    pub(crate) fn returns(&self) -> &str {
        self.words.split_once("\\return ").map_or("", |(_, after)| after)
    }

    /// What follows `Inside callbacks:`, a word.
    pub(crate) fn inside_callbacks(&self) -> &str {
        let (_, after) = self.words.split_once("Inside callbacks: ").unwrap_or_default();
        after.split(['.', ' ', ';']).next().unwrap_or_default()
    }
}

/// The statuses that a function's documentation names.
pub(crate) fn told(functions: &BTreeMap<String, Function>, function: &Function) -> Vec<String> {
    let numbers = numbers();
    let status = |name: &str| numbers.get(name).copied().filter(|number| *number <= 0);
    let between = |low: i128, high: i128| {
        let all = numbers.iter().filter(move |(_, number)| (low..=high).contains(*number));
        all.map(|(name, _)| name.clone()).filter(|name| !name.ends_with("MAJOR"))
    };
    let words = function.returns();
    let mut told = Vec::new();
    let tokens: Vec<&str> =
        words.split(|c: char| !(c.is_alphanumeric() || "_…".contains(c))).collect();
    for (at, token) in tokens.iter().enumerate() {
        if let Some(prefix) = token.strip_suffix('…') {
            assert_eq!(prefix, "RAFTZ_UNKNOWN_", "{}", function.name);
            told.extend(between(-63, -32));
        } else if let Some(number) = status(token) {
            told.push((*token).to_owned());
            // "from A to B"
            let last = tokens.get(at + 1).filter(|word| **word == "to").and(tokens.get(at + 2));
            if let Some(last) = last.and_then(|word| status(word)) {
                told.extend(between(last, number));
            }
        } else if let Some(other) = functions.get(*token) {
            // "As raftz_propose()"
            told.extend(self::told(functions, other));
        }
    }
    told.sort();
    told.dedup();
    told
}

/// A struct whose layout the header shows.
#[derive(Clone, Debug)]
pub(crate) struct Struct {
    pub(crate) name: String,
    pub(crate) fields: Vec<Typed>,
}

pub(crate) fn text() -> String {
    std::fs::read_to_string(super::root().join("include/raftz.h")).unwrap()
}

/// The number behind a `#define`.
pub(crate) fn number(name: &str) -> i128 {
    numbers()[name]
}

/// Every `#define` of a number.
pub(crate) fn numbers() -> BTreeMap<String, i128> {
    numbers_in(&text())
}

/// As [`numbers`], of another header.
pub(crate) fn numbers_in(text: &str) -> BTreeMap<String, i128> {
    let defines = text.lines().filter_map(|line| line.strip_prefix("#define ")?.split_once(' '));
    let read = |(name, value): (&str, &str)| {
        let value = value.trim_end_matches("ull").parse().ok()?;
        Some((name.to_owned(), value))
    };
    defines.filter_map(read).collect()
}

/// Every function that is a symbol, in the header's order.
pub(crate) fn functions() -> Vec<Function> {
    functions_in(&text())
}

/// As [`functions`], of another header.
pub(crate) fn functions_in(text: &str) -> Vec<Function> {
    let inside = text.split("extern \"C\" {\n#endif // __cplusplus\n").nth(1).unwrap();
    let inside = inside.split("#ifdef __cplusplus").next().unwrap();
    let pieces = inside.split_inclusive("*/").collect::<Vec<_>>();
    let mut functions = Vec::new();
    for (comment, code) in pieces.iter().zip(pieces.iter().skip(1)) {
        // What comes between two comments, without the second.
        let code = code.split("/**").next().unwrap();
        functions.extend(code.split(';').filter_map(|declared| function(comment, declared)));
    }
    functions
}

fn function(comment: &str, declared: &str) -> Option<Function> {
    let (before, after) = declared.split_once('(')?;
    let result = typed(before);
    let inside = after.rsplit_once(')')?.0;
    let listed = inside.split(',').map(typed);
    let parameters = listed.filter(|it| it.base != "void" || it.stars > 0).collect();
    Some(Function { name: result.name.clone(), result, parameters, words: words(comment) })
}

fn words(comment: &str) -> String {
    let body = comment.rsplit("/**").next().unwrap().trim_end_matches("*/");
    let lines = body.lines().map(|line| line.trim().trim_start_matches('*').trim());
    lines.collect::<Vec<_>>().join(" ")
}

fn typed(declared: &str) -> Typed {
    let spaced = declared.replace('*', " * ");
    let mut words: Vec<&str> =
        spaced.split_whitespace().filter(|word| !["struct", "union", "*"].contains(word)).collect();
    let is_const = words.first() == Some(&"const");
    words.retain(|word| *word != "const");
    let (name, count) = match words.last().unwrap().split_once('[') {
        Some((name, count)) => (name, count.trim_end_matches(']').parse().unwrap()),
        None => (*words.last().unwrap(), 1),
    };
    let stars = declared.matches('*').count();
    Typed { base: words[0].to_owned(), stars, is_const, name: name.to_owned(), count }
}

/// Every struct that is not opaque, in the header's order.
pub(crate) fn structs() -> Vec<Struct> {
    structs_in(&text())
}

/// As [`structs`], of another header.
pub(crate) fn structs_in(text: &str) -> Vec<Struct> {
    declared_in(text, "typedef struct ")
}

/// Every union.
pub(crate) fn unions_in(text: &str) -> Vec<Struct> {
    declared_in(text, "typedef union ")
}

fn declared_in(text: &str, word: &str) -> Vec<Struct> {
    let declared = text.split(word).skip(1).filter_map(|piece| piece.split_once(" {\n"));
    let mut structs = Vec::new();
    for (name, body) in declared.filter(|(name, _)| !name.contains(['\n', ';'])) {
        let body = body.split("\n}").next().unwrap();
        let code: String = body
            .split("/**")
            .map(|piece| piece.split_once("*/").map_or(piece, |(_, code)| code))
            .collect();
        let fields = code.split(';').filter(|it| !it.trim().is_empty());
        structs.push(Struct { name: name.to_owned(), fields: fields.map(field).collect() });
    }
    structs
}

fn field(declared: &str) -> Typed {
    let Some((_, after)) = declared.split_once("(*") else { return typed(declared.trim()) };
    // A function of a vtable.
    let name = after.split(')').next().unwrap().to_owned();
    Typed { base: "function".to_owned(), stars: 1, is_const: false, name, count: 1 }
}
