//! The structure of a GGUF file: metadata and the whereabouts of tensors.

use std::collections::HashMap;

use crate::{
    model::{LoadError, malformed},
    tensors::{Format, Tensor, Tensors},
};

/// Default of `general.alignment`.
const ALIGNMENT: usize = 32;
/// More dimensions than any tensor has.
const MAX_DIMENSIONS: u32 = 4;

/// A metadata value. Numbers are widened; arrays hold one kind.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Integer(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    Integers(Vec<i64>),
    Floats(Vec<f64>),
    Texts(Vec<String>),
}

impl Value {
    fn describe(&self) -> String {
        match self {
            Self::Integer(value) => format!("the integer {value}"),
            Self::Float(value) => format!("the number {value}"),
            Self::Bool(value) => value.to_string(),
            Self::Text(_) => "text".to_owned(),
            Self::Integers(_) | Self::Floats(_) | Self::Texts(_) => "a list".to_owned(),
        }
    }
}

/// A parsed file.
pub(super) struct Container<'a> {
    metadata: HashMap<String, Value>,
    pub tensors: Tensors<'a>,
}

impl<'a> Container<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, LoadError> {
        let mut reader = Reader { bytes, at: 0 };
        let magic = reader.take(4.min(bytes.len()), "the header")?;
        if magic != b"GGUF" {
            return Err(LoadError::Magic(magic.to_vec()));
        }
        let version = reader.u32("the header")?;
        if !(2..=3).contains(&version) {
            return Err(LoadError::Version(version));
        }
        let (tensors, pairs) = (reader.u64("the header")?, reader.u64("the header")?);
        let metadata = metadata(&mut reader, pairs)?;
        let infos = infos(&mut reader, tensors)?;
        let alignment = match metadata.get("general.alignment") {
            Some(Value::Integer(n)) if (1..=1 << 20).contains(n) => *n as usize,
            Some(other) => return Err(malformed(format!("`general.alignment` is {}", other.describe()))),
            None => ALIGNMENT,
        };
        let data = bytes.get(reader.at.next_multiple_of(alignment)..).unwrap_or(&[]);
        Ok(Self { metadata, tensors: locate(infos, data)? })
    }

    pub(super) fn text(&self, key: &str) -> Result<&str, LoadError> {
        match self.get(key)? {
            Value::Text(text) => Ok(text),
            other => Err(wrong(key, other, "text")),
        }
    }

    pub(super) fn integer(&self, key: &str) -> Result<i64, LoadError> {
        match self.get(key)? {
            Value::Integer(value) => Ok(*value),
            other => Err(wrong(key, other, "an integer")),
        }
    }

    pub(super) fn boolean(&self, key: &str) -> Result<bool, LoadError> {
        match self.get(key)? {
            Value::Bool(value) => Ok(*value),
            other => Err(wrong(key, other, "true or false")),
        }
    }

    pub(super) fn number(&self, key: &str) -> Result<f64, LoadError> {
        match self.get(key)? {
            Value::Integer(value) => Ok(*value as f64),
            Value::Float(value) => Ok(*value),
            other => Err(wrong(key, other, "a number")),
        }
    }

    pub(super) fn integers(&self, key: &str) -> Result<&[i64], LoadError> {
        match self.get(key)? {
            Value::Integers(values) => Ok(values),
            other => Err(wrong(key, other, "a list of integers")),
        }
    }

    pub(super) fn texts(&self, key: &str) -> Result<&[String], LoadError> {
        match self.get(key)? {
            Value::Texts(values) => Ok(values),
            other => Err(wrong(key, other, "a list of texts")),
        }
    }

    fn get(&self, key: &str) -> Result<&Value, LoadError> {
        self.metadata.get(key).ok_or_else(|| LoadError::MissingKey(key.to_owned()))
    }
}

fn wrong(key: &str, found: &Value, expected: &'static str) -> LoadError {
    LoadError::Key { key: key.to_owned(), found: found.describe(), expected }
}

fn metadata(reader: &mut Reader, pairs: u64) -> Result<HashMap<String, Value>, LoadError> {
    let mut metadata = HashMap::new();
    for _ in 0..pairs {
        let key = reader.text("a metadata key")?;
        let kind = reader.u32(&key)?;
        let value = value(reader, kind, &key)?;
        metadata.insert(key, value);
    }
    Ok(metadata)
}

fn value(reader: &mut Reader, kind: u32, key: &str) -> Result<Value, LoadError> {
    Ok(match kind {
        6 | 12 => Value::Float(reader.float(kind, key)?),
        7 => Value::Bool(reader.integer(kind, key)? != 0),
        8 => Value::Text(reader.text(key)?),
        9 => {
            let (kind, count) = (reader.u32(key)?, reader.u64(key)?);
            array(reader, kind, count, key)?
        }
        _ => Value::Integer(reader.integer(kind, key)?),
    })
}

/// The vectors grow as elements are really read: a count that lies costs nothing.
fn array(reader: &mut Reader, kind: u32, count: u64, key: &str) -> Result<Value, LoadError> {
    Ok(match kind {
        6 | 12 => Value::Floats((0..count).map(|_| reader.float(kind, key)).collect::<Result<_, _>>()?),
        8 => Value::Texts((0..count).map(|_| reader.text(key)).collect::<Result<_, _>>()?),
        9 => return Err(malformed(format!("`{key}` is a list of lists"))),
        _ => Value::Integers((0..count).map(|_| reader.integer(kind, key)).collect::<Result<_, _>>()?),
    })
}

struct Info {
    name: String,
    shape: Vec<usize>,
    kind: u32,
    offset: u64,
}

fn infos(reader: &mut Reader, count: u64) -> Result<Vec<Info>, LoadError> {
    let mut infos = Vec::new();
    for _ in 0..count {
        let name = reader.text("a tensor's name")?;
        let dimensions = reader.u32(&name)?;
        if dimensions > MAX_DIMENSIONS {
            return Err(malformed(format!("tensor `{name}` has {dimensions} dimensions")));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            let size = usize::try_from(reader.u64(&name)?);
            shape.push(size.map_err(|_| malformed(format!("tensor `{name}` is too large")))?);
        }
        infos.push(Info { shape, kind: reader.u32(&name)?, offset: reader.u64(&name)?, name });
    }
    Ok(infos)
}

/// Finds each tensor's bytes. Tensors may not share bytes, or a small file could describe an enormous model.
fn locate(infos: Vec<Info>, data: &[u8]) -> Result<Tensors<'_>, LoadError> {
    let mut tensors = Tensors::new();
    let mut total = 0_usize;
    for Info { name, shape, kind, offset } in infos {
        let Some(format) = Format::of(kind) else {
            return Err(LoadError::TensorType { name, kind: format!("ggml type {kind}") });
        };
        let elements = shape.iter().try_fold(1_usize, |n, &size| n.checked_mul(size));
        let size = elements.and_then(|n| format.size(n)).ok_or_else(|| {
            malformed(format!("tensor `{name}` of shape {shape:?} does not fill whole blocks"))
        })?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = start
            .checked_add(size)
            .and_then(|end| data.get(start..end))
            .ok_or_else(|| LoadError::Truncated(format!("tensor `{name}`")))?;
        total = total.saturating_add(size);
        if total > data.len() {
            return Err(malformed(format!("tensor `{name}` overlaps another")));
        }
        if tensors.insert(name.clone(), Tensor { shape, format, data: bytes }).is_some() {
            return Err(malformed(format!("tensor `{name}` occurs twice")));
        }
    }
    Ok(tensors)
}

/// Little-endian reader that names what it was reading when the bytes ran out.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize, what: &str) -> Result<&'a [u8], LoadError> {
        let end = self.at.checked_add(n);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or_else(|| LoadError::Truncated(format!("`{what}`")))?;
        self.at += n;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], LoadError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }

    fn u32(&mut self, what: &str) -> Result<u32, LoadError> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64, LoadError> {
        self.array(what).map(u64::from_le_bytes)
    }

    fn text(&mut self, what: &str) -> Result<String, LoadError> {
        let length = usize::try_from(self.u64(what)?).unwrap_or(usize::MAX);
        let bytes = self.take(length, what)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| malformed(format!("`{what}` is not UTF-8")))
    }

    fn float(&mut self, kind: u32, what: &str) -> Result<f64, LoadError> {
        match kind {
            6 => self.array(what).map(f32::from_le_bytes).map(f64::from),
            _ => self.array(what).map(f64::from_le_bytes),
        }
    }

    fn integer(&mut self, kind: u32, what: &str) -> Result<i64, LoadError> {
        Ok(match kind {
            0 | 7 => i64::from(self.array::<1>(what)?[0]),
            1 => i64::from(i8::from_le_bytes(self.array(what)?)),
            2 => i64::from(u16::from_le_bytes(self.array(what)?)),
            3 => i64::from(i16::from_le_bytes(self.array(what)?)),
            4 => i64::from(self.u32(what)?),
            5 => i64::from(i32::from_le_bytes(self.array(what)?)),
            10 => i64::try_from(self.u64(what)?).unwrap_or(i64::MAX),
            11 => i64::from_le_bytes(self.array(what)?),
            other => return Err(malformed(format!("`{what}` has the unknown value type {other}"))),
        })
    }
}
