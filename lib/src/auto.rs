//! A number that may be left to whoever has to use it.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

pub const AUTO: &str = "auto";

/// A number, or the word `"auto"`, as settings and OpenAI's hyperparameters write it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Auto<T> {
    #[default]
    Auto,
    Fixed(T),
}

impl<T> Auto<T> {
    pub fn is_auto(&self) -> bool {
        matches!(self, Self::Auto)
    }
}

impl<T: Copy> Auto<T> {
    pub fn fixed(self) -> Option<T> {
        match self {
            Self::Auto => None,
            Self::Fixed(value) => Some(value),
        }
    }

    pub fn or(self, auto: T) -> T {
        self.fixed().unwrap_or(auto)
    }
}

impl<T> From<Option<T>> for Auto<T> {
    fn from(given: Option<T>) -> Self {
        given.map_or(Self::Auto, Self::Fixed)
    }
}

impl<T: Serialize> Serialize for Auto<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => to.serialize_str(AUTO),
            Self::Fixed(value) => value.serialize(to),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Auto<T> {
    /// Servers write null for what they have not settled.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw<T> {
            Number(T),
            Word(Option<String>),
        }
        match Raw::deserialize(from) {
            Ok(Raw::Number(value)) => Ok(Self::Fixed(value)),
            Ok(Raw::Word(None)) => Ok(Self::Auto),
            Ok(Raw::Word(Some(word))) if word == AUTO => Ok(Self::Auto),
            Ok(Raw::Word(Some(word))) => {
                Err(D::Error::custom(format!("expected a number or \"auto\", not \"{word}\"")))
            }
            Err(_) => Err(D::Error::custom("expected a number or \"auto\"")),
        }
    }
}
