//! A command's parameters as people read them.
//!
//! The few binary formats that clients use for what is not text are read; anything else is shown as hexadecimal
//! digits. Text is quoted, so that a value never looks like `NULL`, a number or a second value.

use crate::message::Parameter;

/// The name of a type, for those that need no explanation.
#[must_use]
pub fn type_name(type_oid: u32) -> Option<&'static str> {
    Some(match type_oid {
        16 => "bool",
        17 => "bytea",
        18 => "char",
        19 => "name",
        20 => "int8",
        21 => "int2",
        23 => "int4",
        25 => "text",
        26 => "oid",
        114 => "json",
        700 => "float4",
        701 => "float8",
        1042 => "bpchar",
        1043 => "varchar",
        1082 => "date",
        1114 => "timestamp",
        1184 => "timestamptz",
        1700 => "numeric",
        2950 => "uuid",
        3802 => "jsonb",
        _ => return None,
    })
}

/// One parameter's value, still to be shown by `text`.
#[must_use]
pub fn value(parameter: &Parameter) -> Vec<u8> {
    if parameter.null {
        return b"NULL".to_vec();
    }
    if parameter.binary { binary(parameter) } else { quoted(&parameter.value) }
}

/// All parameters in brackets; nothing where there are none. `count` says how many there are in full.
#[must_use]
pub fn list(parameters: &[Parameter], count: usize) -> Vec<u8> {
    let mut list = Vec::new();
    for (at, parameter) in parameters.iter().enumerate() {
        list.extend_from_slice(if at == 0 { b"[" } else { b", " });
        list.extend(value(parameter));
    }
    if count > parameters.len() {
        list.extend(format!(" +{}", count - parameters.len()).into_bytes());
    }
    if !list.is_empty() {
        list.push(b']');
    }
    list
}

fn quoted(value: &[u8]) -> Vec<u8> {
    let number = std::str::from_utf8(value).is_ok_and(|text| {
        text.len() < 40
            && text.chars().all(|c| matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E'))
            && text.parse::<f64>().is_ok()
    });
    if number {
        return value.to_vec();
    }
    let mut quoted = vec![b'\''];
    for byte in value {
        if *byte == b'\'' {
            quoted.push(b'\'');
        }
        quoted.push(*byte);
    }
    quoted.push(b'\'');
    quoted
}

fn binary(parameter: &Parameter) -> Vec<u8> {
    let bytes = parameter.value.as_slice();
    match (parameter.type_oid, bytes) {
        (16, [0]) => b"false".to_vec(),
        (16, [1]) => b"true".to_vec(),
        (21, [a, b]) => i16::from_be_bytes([*a, *b]).to_string().into_bytes(),
        (23, [a, b, c, d]) => i32::from_be_bytes([*a, *b, *c, *d]).to_string().into_bytes(),
        (26, [a, b, c, d]) => u32::from_be_bytes([*a, *b, *c, *d]).to_string().into_bytes(),
        (700, [a, b, c, d]) => f32::from_be_bytes([*a, *b, *c, *d]).to_string().into_bytes(),
        (20, [a, b, c, d, e, f, g, h]) => {
            i64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]).to_string().into_bytes()
        }
        (701, [a, b, c, d, e, f, g, h]) => {
            f64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]).to_string().into_bytes()
        }
        (18 | 19 | 25 | 114 | 1042 | 1043, text) => quoted(text),
        (3802, [1, json @ ..]) => quoted(json),
        (2950, bytes) if bytes.len() == 16 => {
            let hex = hexadecimal(bytes);
            format!("'{}-{}-{}-{}-{}'", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
                .into_bytes()
        }
        _ => format!("\\x{}", hexadecimal(bytes)).into_bytes(),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_never_look_like_something_else() {
        let text = |value: &str| Parameter { value: value.into(), ..Parameter::default() };
        let binary = |type_oid, value: &[u8]| Parameter {
            type_oid,
            binary: true,
            value: value.into(),
            ..Parameter::default()
        };
        for (parameter, shown) in [
            (text("4711"), "4711"),
            (text("-1.5e3"), "-1.5e3"),
            (text("NULL"), "'NULL'"),
            (text("a', 'b"), "'a'', ''b'"),
            (text("inf"), "'inf'"),
            (text(""), "''"),
            (Parameter { null: true, ..Parameter::default() }, "NULL"),
            (binary(23, &4711_i32.to_be_bytes()), "4711"),
            (binary(20, &(-1_i64).to_be_bytes()), "-1"),
            (binary(16, &[1]), "true"),
            (binary(25, b"paid"), "'paid'"),
            (binary(2950, &[0xab; 16]), "'abababab-abab-abab-abab-abababababab'"),
            (binary(23, &[1, 2]), "\\x0102"),
            (binary(0, &[0xff]), "\\xff"),
        ] {
            assert_eq!(String::from_utf8(value(&parameter)).unwrap(), shown);
        }
        assert_eq!(list(&[text("1"), text("x")], 2), b"[1, 'x']");
        assert_eq!(list(&[text("1")], 4), b"[1 +3]");
        assert_eq!(list(&[], 0), b"");
    }
}
