use std::path::{Path, PathBuf};

use clap::Args;
use hone::{monitor::Monitor as View, store::write_atomic};

use crate::{context::Context, error::Result};

/// Scores over the rounds, what is still wrong, and whether critic and variety held
#[derive(Clone, Debug, Args)]
pub struct Monitor {
    /// Write the learnings down as Markdown, with a picture beside
    #[arg(long, value_name = "FILE")]
    markdown: Option<Option<PathBuf>>,
    /// Draw the scores over the rounds, as SVG
    #[arg(long, value_name = "FILE")]
    picture: Option<Option<PathBuf>>,
}

pub fn run(args: &Monitor, context: &Context) -> Result {
    let view = View::of(&context.workspace)?;
    let usual = context.workspace.monitor();
    let document = args.markdown.clone().map(|named| named.unwrap_or_else(|| usual.clone()));
    let beside = document.as_ref().map(|path| path.with_extension("svg"));
    let picture = args.picture.clone().map(|named| named.unwrap_or_else(|| usual.with_extension("svg")));
    let picture = picture.or(beside);
    let mut written: Vec<PathBuf> = Vec::new();
    if let Some(path) = &picture {
        view.draw(path)?;
        written.push(path.clone());
    }
    if let Some(path) = document {
        let link = picture.as_deref().map(|picture| link(picture, &path));
        write_atomic(&path, view.markdown(link.as_deref()).as_bytes())?;
        written.push(path);
    }
    for path in written {
        context.events.note(format!("written: `{}`", path.display()));
    }
    context.answer(&view, || view.text())
}

/// How a document links to a picture: by its name where both are in one folder.
fn link(picture: &Path, document: &Path) -> String {
    let same = picture.parent() == document.parent();
    let name = picture.file_name().filter(|_| same).map(Path::new).unwrap_or(picture);
    name.display().to_string()
}
