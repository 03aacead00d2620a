//! Two apps side by side as a page, without a word about who wrote them.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use minijinja::{AutoEscape, Environment, value::Serde};
use serde::Serialize;

use super::offers::Offer;

#[derive(Clone, Debug, Serialize)]
struct Shown {
    name: &'static str,
    /// As a `data:` address.
    picture: Option<String>,
    files: Vec<(String, String)>,
}

/// What the template is given.
#[derive(Clone, Debug, Serialize)]
struct View<'a> {
    description: &'a str,
    requirements: &'a [String],
    shown: Vec<Shown>,
    number: usize,
    of: usize,
}

/// The page of one pair: one file, no script, no request.
///
/// # Errors
/// The template cannot be rendered, which is our own fault.
pub fn page(offer: &Offer, number: usize, of: usize) -> Result<String, minijinja::Error> {
    let sides = offer.shown();
    let shown = ["A", "B"].into_iter().zip(sides).map(|(name, (side, picture))| Shown {
        name,
        // A picture that is gone is not shown; the code is.
        picture: picture
            .and_then(|path| std::fs::read(path).ok())
            .map(|bytes| format!("data:image/webp;base64,{}", BASE64_STANDARD.encode(bytes))),
        files: side.files.iter().map(|file| (file.path.clone(), file.content.clone())).collect(),
    });
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.render_named_str(
        "rate.html",
        include_str!("rate.html.jinja"),
        Serde(View {
            description: &offer.brief.description,
            requirements: &offer.brief.requirements,
            shown: shown.collect(),
            number,
            of,
        }),
    )
}

/// The same for a terminal.
pub fn terminal(offer: &Offer, number: usize, of: usize) -> String {
    let mut text = format!("pair {number} of {of}: {}\n", offer.brief.description);
    for requirement in &offer.brief.requirements {
        text.push_str(&format!("  - {requirement}\n"));
    }
    for (name, (side, _)) in ["A", "B"].into_iter().zip(offer.shown()) {
        for file in &side.files {
            text.push_str(&format!("\n--- {name}: {} ---\n{}\n", file.path, plain(file.content.trim_end())));
        }
    }
    text
}

/// Text that cannot move the cursor or colour the screen.
fn plain(text: &str) -> String {
    text.chars().filter(|c| *c == '\n' || *c == '\t' || !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agent::SourceFile,
        brief::Brief,
        rating::{Side, Source, Which},
    };

    fn offer(first: Which) -> Offer {
        let side = |arm: &str, code: &str| Side {
            model: format!("ft:secret-{arm}"),
            arm: Some(arm.into()),
            sample: Some(0),
            log: Some("secret.json".into()),
            iteration: Some(7),
            score: Some(9.25),
            files: vec![SourceFile { path: "app.py".into(), content: code.into() }],
        };
        Offer {
            source: Source::Trial("t-secret".into()),
            brief: Brief::from_description("a form with <b>name</b>").unwrap(),
            a: side("base", "one = '<script>'\n"),
            b: side("tuned", "two = 2\u{1b}[31m\n"),
            first,
            pictures: [None, None],
        }
    }

    #[test]
    fn nothing_that_is_shown_tells_who_wrote_it() {
        for first in [Which::A, Which::B] {
            let offer = offer(first);
            for text in [page(&offer, 1, 9).unwrap(), terminal(&offer, 1, 9)] {
                for word in ["secret", "tuned", "base\"", "9.25", "ft:"] {
                    assert!(!text.contains(word), "`{word}` in {text}");
                }
                assert!(
                    !text.contains("<script>alert") && text.contains("one = ") && text.contains("two = 2")
                );
            }
        }
        let (one, two) = (terminal(&offer(Which::A), 1, 9), terminal(&offer(Which::B), 1, 9));
        assert!(one.find("one =") < one.find("two =") && two.find("two =") < two.find("one ="));
    }

    #[test]
    fn code_is_text_on_the_page_and_in_the_terminal() {
        let page = page(&offer(Which::A), 1, 9).unwrap();
        assert!(!page.contains("<script>") && page.contains("&lt;script&gt;") && !page.contains("<b>name"));
        assert!(!page.contains("http"), "no request");
        assert!(!terminal(&offer(Which::A), 1, 9).contains('\u{1b}'));
    }
}
