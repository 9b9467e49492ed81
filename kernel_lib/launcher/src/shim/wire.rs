//! The protobuf wire format, as far as `start` and `delete` need it: <https://protobuf.dev/programming-guides/encoding/>.

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED32: u64 = 5;

/// The fields of a message that are strings, bytes or messages: number and content. None: it is no message.
pub fn fields(mut data: &[u8]) -> Option<Vec<(u64, &[u8])>> {
    let mut found = Vec::new();
    while !data.is_empty() {
        let tag = varint(&mut data)?;
        let size = match tag & 7 {
            VARINT => {
                varint(&mut data)?;
                continue;
            }
            LENGTH => usize::try_from(varint(&mut data)?).ok()?,
            FIXED64 => 8,
            FIXED32 => 4,
            _ => return None,
        };
        let (value, rest) = data.split_at_checked(size)?;
        if tag & 7 == LENGTH {
            found.push((tag >> 3, value));
        }
        data = rest;
    }
    Some(found)
}

/// The first of that number, as text.
pub fn text<'a>(fields: &[(u64, &'a [u8])], number: u64) -> &'a str {
    let value = fields.iter().find(|field| field.0 == number).map_or(&[][..], |field| field.1);
    std::str::from_utf8(value).unwrap_or_default()
}

fn varint(data: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = data.split_first()?;
        *data = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

pub fn put_number(out: &mut Vec<u8>, number: u64, value: u64) {
    put_varint(out, number << 3 | VARINT);
    put_varint(out, value);
}

pub fn put_message(out: &mut Vec<u8>, number: u64, message: &[u8]) {
    put_varint(out, number << 3 | LENGTH);
    put_varint(out, message.len() as u64);
    out.extend_from_slice(message);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut data = Vec::new();
        put_number(&mut data, 3, u64::MAX);
        put_message(&mut data, 2000, &[7; 200]);
        put_message(&mut data, 1, b"a");
        let read = fields(&data).unwrap();
        assert_eq!(read, [(2000, &[7; 200][..]), (1, b"a")]);
        assert_eq!((text(&read, 1), text(&read, 9)), ("a", ""));
    }

    #[test]
    fn garbage_is_no_message() {
        for data in [&b"\xff\xff"[..], b"\x0a\x05ab", b"\x0b", &[0xff; 12]] {
            assert!(fields(data).is_none(), "{data:?}");
        }
    }
}
