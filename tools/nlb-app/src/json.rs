// SPDX-License-Identifier: MIT OR Apache-2.0

//! As much JSON (RFC 8259) as the lines of the agent need: texts to write, and objects to read.

use std::{fmt, iter::Peekable, str::Chars};

/// Objects and lists within each other that are read.
const DEPTH_MAX: usize = 8;

/// A text, with its quotes when it is printed.
pub(crate) struct Text<'a>(pub(crate) &'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for c in self.0.chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                c if c < ' ' => write!(f, "\\u{:04x}", u32::from(c))?,
                c => write!(f, "{c}")?,
            }
        }
        f.write_str("\"")
    }
}

/// A value that was read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// `null`, `true`, `false` or a number, as it is written.
    Plain(String),
    Text(String),
    List(Vec<Value>),
    Object(Vec<(String, Value)>),
}

impl Value {
    /// What a line has, and nothing else.
    pub(crate) fn read(line: &str) -> Option<Self> {
        let mut reader = Reader {
            rest: line.chars().peekable(),
        };
        let value = reader.value(0)?;
        reader.skip();
        reader.rest.next().is_none().then_some(value)
    }

    /// A member of an object; the last one, if there are several.
    pub(crate) fn get(&self, name: &str) -> Option<&Self> {
        let Self::Object(members) = self else {
            return None;
        };
        let mut named = members.iter().rev().filter(|(own, _)| own == name);
        named.next().map(|(_, value)| value)
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A number or truth value that can be one of this type.
    pub(crate) fn plain<T: std::str::FromStr>(&self) -> Option<T> {
        match self {
            Self::Plain(text) => text.parse().ok(),
            _ => None,
        }
    }
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
}

impl Reader<'_> {
    fn skip(&mut self) {
        while self.rest.next_if(|c| " \t\r\n".contains(*c)).is_some() {}
    }

    /// The next sign that is no space, if it is this one.
    fn takes(&mut self, sign: char) -> bool {
        self.skip();
        self.rest.next_if_eq(&sign).is_some()
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth > DEPTH_MAX {
            return None;
        }
        self.skip();
        match self.rest.peek()? {
            '"' => self.text().map(Value::Text),
            '[' => {
                let items = self.items('[', ']', |own| own.value(depth + 1))?;
                Some(Value::List(items))
            }
            '{' => {
                let member = |own: &mut Self| {
                    own.skip();
                    let name = own.text()?;
                    let value = own.takes(':').then(|| own.value(depth + 1));
                    Some((name, value??))
                };
                self.items('{', '}', member).map(Value::Object)
            }
            _ => self.plain(),
        }
    }

    fn items<T>(
        &mut self,
        open: char,
        close: char,
        item: impl Fn(&mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        let mut items = Vec::new();
        if !self.takes(open) {
            return None;
        }
        if self.takes(close) {
            return Some(items);
        }
        loop {
            items.push(item(self)?);
            if self.takes(close) {
                return Some(items);
            }
            if !self.takes(',') {
                return None;
            }
        }
    }

    fn plain(&mut self) -> Option<Value> {
        let mut text = String::new();
        let fits = |c: &char| c.is_ascii_alphanumeric() || "+-.".contains(*c);
        while let Some(c) = self.rest.next_if(fits) {
            text.push(c);
        }
        let is_one =
            matches!(text.as_str(), "null" | "true" | "false") || text.parse::<f64>().is_ok();
        is_one.then_some(Value::Plain(text))
    }

    fn text(&mut self) -> Option<String> {
        let mut text = String::new();
        self.rest.next_if_eq(&'"')?;
        loop {
            match self.rest.next()? {
                '"' => return Some(text),
                '\\' => text.push(self.escaped()?),
                c if c < ' ' => return None,
                c => text.push(c),
            }
        }
    }

    fn escaped(&mut self) -> Option<char> {
        Some(match self.rest.next()? {
            c @ ('"' | '\\' | '/') => c,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => match self.unit()? {
                high @ 0xd800..=0xdbff => {
                    let is_pair = self.rest.next() == Some('\\') && self.rest.next() == Some('u');
                    let low = is_pair.then(|| self.unit())??;
                    char::decode_utf16([high, low]).next()?.ok()?
                }
                unit => char::from_u32(unit.into())?,
            },
            _ => return None,
        })
    }

    /// Four hexadecimal digits.
    fn unit(&mut self) -> Option<u16> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.rest.next()?.to_digit(16)?;
            unit = unit << 4 | u16::try_from(digit).ok()?;
        }
        Some(unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back() {
        for text in ["", "shop", "a\"b\\c/\n\u{1}\u{7f}é🦀"] {
            let line = Text(text).to_string();
            assert!(!line.contains('\n'));
            assert_eq!(Value::read(&line), Some(Value::Text(text.to_owned())));
        }
        let escaped = Value::read(r#""\u00e9\ud83e\udd80\b\f\n\r\t\/""#).unwrap();
        assert_eq!(escaped.text(), Some("é🦀\u{8}\u{c}\n\r\t/"));
    }

    #[test]
    fn objects_are_read() {
        let line = r#" { "a" : 1, "b":[true,null,-2.5e3,[],{}] ,"c":"x","a":7} "#;
        let value = Value::read(line).unwrap();
        assert_eq!(value.get("a").and_then(Value::plain::<u8>), Some(7));
        assert_eq!(value.get("c").and_then(Value::text), Some("x"));
        assert!(matches!(value.get("b"), Some(Value::List(items)) if items.len() == 5));
        assert_eq!(value.get("d"), None);
        let large = Value::read("300").unwrap();
        assert_eq!(large.plain::<u8>(), None);
    }

    #[test]
    fn nothing_else_is() {
        let broken = [
            "",
            " ",
            "{",
            "}",
            "{}x",
            "{} {}",
            "[1",
            "[1,]",
            "[,]",
            "{1:2}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{\"a\" 1}",
            "nul",
            "tru e",
            "-",
            "1.2.3",
            "\"",
            "\"\\",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\u12g4\"",
            "\"\\ud83e\"",
            "\"\\ud83e\\u0041\"",
            "\"\\udd80\"",
            "\"a\nb\"",
            "'a'",
            "\u{feff}{}",
        ];
        for line in broken {
            assert_eq!(Value::read(line), None, "{line}");
        }
        let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(Value::read(&deep(DEPTH_MAX + 1)).is_some());
        assert_eq!(Value::read(&deep(DEPTH_MAX + 2)), None);
        assert_eq!(Value::read(&"[".repeat(1 << 20)), None);
    }
}
