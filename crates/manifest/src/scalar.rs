//! Resolves unquoted YAML scalars as kubectl does.
//!
//! kubectl and the API server read YAML with `sigs.k8s.io/yaml`, which resolves scalars like go-yaml v2: YAML 1.1
//! booleans (`no`, `on`, `y`), C-style octals (`0777`), underscores in numbers. The rules follow its
//! `goyaml.v2/resolve.go`. Timestamps stay text, as in `sigs.k8s.io/yaml`.

use std::borrow::Cow;

/// A resolved scalar.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar<'t> {
    /// `null`, `~` or nothing.
    Null,
    /// A boolean, in any of the YAML 1.1 spellings.
    Bool(bool),
    /// An integer. Integers of more than 128 bits become [`Scalar::Float`]. No field of a decoded kind accepts either.
    Int(i128),
    /// A number that is not an integer, or infinite.
    Float(f64),
    /// Text.
    Str(Cow<'t, str>),
}

impl Scalar<'_> {
    /// Returns the JSON type, as in "cannot unmarshal number into …".
    #[must_use]
    pub fn json_type(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Int(_) | Self::Float(_) => "number",
            Self::Str(_) => "string",
        }
    }
}

/// Resolves an unquoted, untagged scalar.
#[must_use]
pub fn resolve(text: Cow<'_, str>) -> Scalar<'_> {
    match &*text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Scalar::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Scalar::Bool(false);
        }
        ".nan" | ".NaN" | ".NAN" => return Scalar::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Scalar::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Scalar::Float(f64::NEG_INFINITY),
        _ => {}
    }
    match number(&text) {
        Some(number) => number,
        None => Scalar::Str(text),
    }
}

fn number(text: &str) -> Option<Scalar<'static>> {
    let first = *text.as_bytes().first()?;
    if !matches!(first, b'0'..=b'9' | b'+' | b'-' | b'.') {
        return None;
    }
    if first == b'.' {
        return is_float(text).then(|| text.parse().ok()).flatten().map(Scalar::Float);
    }
    let plain: Cow<'_, str> = if text.contains('_') { text.replace('_', "").into() } else { text.into() };
    if let Some(int) = integer(&plain) {
        return Some(Scalar::Int(int));
    }
    is_float(&plain).then(|| plain.parse().ok()).flatten().map(Scalar::Float)
}

/// Parses an integer like Go's `strconv.ParseInt(s, 0, …)`: the prefix selects the base, and a leading `0` means octal.
fn integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (base, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    // `from_str_radix` would accept a second sign.
    if !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let value = i128::from_str_radix(digits, base).ok()?;
    Some(if negative { -value } else { value })
}

/// `^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`
fn is_float(text: &str) -> bool {
    fn digits(s: &str) -> (usize, &str) {
        let n = s.bytes().take_while(u8::is_ascii_digit).count();
        (n, &s[n..])
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, rest) = digits(unsigned);
    let rest = match rest.strip_prefix('.') {
        Some(fraction) => {
            let (n, rest) = digits(fraction);
            if whole == 0 && n == 0 {
                return false;
            }
            rest
        }
        None if whole == 0 => return false,
        None => rest,
    };
    match rest.strip_prefix(['e', 'E']) {
        Some(exponent) => {
            let (n, rest) = digits(exponent.strip_prefix(['-', '+']).unwrap_or(exponent));
            n > 0 && rest.is_empty()
        }
        None => rest.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Scalar<'_> {
        resolve(Cow::Borrowed(text))
    }

    #[test]
    fn yaml_1_1_booleans_and_nulls() {
        for text in ["y", "Y", "yes", "YES", "on", "On", "true", "TRUE"] {
            assert_eq!(of(text), Scalar::Bool(true), "{text}");
        }
        for text in ["n", "N", "no", "No", "off", "OFF", "false", "False"] {
            assert_eq!(of(text), Scalar::Bool(false), "{text}");
        }
        for text in ["", "~", "null", "NULL"] {
            assert_eq!(of(text), Scalar::Null, "{text}");
        }
        for text in ["nO", "yES", "tRUE", "nil", "none"] {
            assert_eq!(of(text), Scalar::Str(text.into()), "{text}");
        }
    }

    #[test]
    fn numbers_match_go() {
        let ints = [
            ("0", 0),
            ("0777", 511),
            ("0o17", 15),
            ("0x1F", 31),
            ("0b101", 5),
            ("-0b101", -5),
            ("1_000", 1000),
            ("+5", 5),
            ("-07", -7),
            ("18446744073709551616", 18_446_744_073_709_551_616),
        ];
        for (text, value) in ints {
            assert_eq!(of(text), Scalar::Int(value), "{text}");
        }
        // Not octal digits: go-yaml falls back to a float, which JSON prints as 8.
        for (text, value) in
            [("08", 8.0), ("1.5", 1.5), (".5", 0.5), ("1e3", 1000.0), ("1.", 1.0), ("-1E-2", -0.01)]
        {
            assert_eq!(of(text), Scalar::Float(value), "{text}");
        }
        assert_eq!(of("-.INF"), Scalar::Float(f64::NEG_INFINITY));
    }

    #[test]
    fn everything_else_is_text() {
        for text in [
            "10.0.0.0/8",
            "2020-01-01",
            "1:30",
            "0x",
            "0b2",
            "--1",
            "+-1",
            "1e",
            ".",
            "-",
            "+",
            "_1",
            "0.0.0",
            "1e5x",
            "é",
        ] {
            assert_eq!(of(text), Scalar::Str(text.into()), "{text}");
        }
    }
}
