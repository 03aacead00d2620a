//! Pictures in user messages. Addresses are not fetched: what lies behind them is the provider's to see.

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde_json::Value;

use super::problem::{Code, Problem};

/// Pictures of one example.
const MOST: usize = 10;
/// Bytes of a picture that is part of the file.
const LARGEST: usize = 10 << 20;
const TYPES: [&str; 4] = ["image/jpeg", "image/jpg", "image/png", "image/webp"];

/// Takes what decoders of pictures take: padded or not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The pictures of a message's content.
pub(super) fn pictures(content: &Value) -> impl Iterator<Item = &Value> {
    let parts = content.as_array().into_iter().flatten();
    parts.filter(|part| is_picture(part))
}

pub(super) fn is_picture(part: &Value) -> bool {
    part.get("type").and_then(Value::as_str) == Some("image_url")
}

/// Looks at one picture of a user message.
pub(super) fn picture(part: &Value, field: &str, found: &mut Vec<Problem>) {
    let image = part.get("image_url");
    let mut add = |code, key: &str, message: String| {
        found.push(Problem::new(code, message).at(format!("{field}.image_url.{key}")));
    };
    let detail = image.and_then(|image| image.get("detail"));
    if detail
        .is_some_and(|detail| !detail.is_null() && !matches!(detail.as_str(), Some("low" | "high" | "auto")))
    {
        add(Code::ImageType, "detail", "`detail` is `low`, `high` or `auto`".into());
    }
    let Some(url) = image.and_then(|image| image.get("url")?.as_str()) else {
        return add(Code::ImageType, "url", "a picture has no address".into());
    };
    if url.starts_with("https://") {
        return;
    }
    let Some((kind, data)) = url.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,")) else {
        return add(Code::ImageType, "url", "the address is neither https nor data in base64".into());
    };
    if !TYPES.contains(&kind) {
        add(Code::ImageType, "url", format!("`{kind}` is not JPEG, PNG or WEBP"));
    }
    let bytes = data.len() / 4 * 3;
    if bytes > LARGEST {
        add(Code::ImageLimit, "url", format!("the picture has {} MB, 10 MB are the most", bytes >> 20));
    } else if data.is_empty() {
        add(Code::ImageType, "url", "the picture is empty".into());
    } else if !is_base64(data) {
        add(Code::ImageType, "url", "the picture's data are no base64".into());
    }
}

/// Broken into lines or not.
fn is_base64(data: &str) -> bool {
    let one_line: Vec<u8> = data.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    BASE64.decode(one_line).is_ok_and(|bytes| !bytes.is_empty())
}

/// Counts the pictures of an example.
pub(super) fn limit(messages: &[Value], field: &str, found: &mut Vec<Problem>) {
    let count: usize = messages.iter().filter_map(|m| m.get("content")).map(|c| pictures(c).count()).sum();
    if count > MOST {
        let message = format!("{count} pictures, {MOST} are the most");
        found.push(Problem::new(Code::ImageLimit, message).at(field));
    }
}
