//! What looks like Python and is not its source: what is typed into an interpreter or a notebook.

use crate::agent::SourceFile;

/// Magics whose cell is Python all the same.
const PYTHON_CELLS: [&str; 5] = ["%%writefile", "%%time", "%%timeit", "%%capture", "%%prun"];

/// A file without what only an interpreter or a notebook reads, its lines where they were; none when that is all of it.
pub(super) fn without_typing(file: SourceFile) -> Option<SourceFile> {
    if !file.path.ends_with(".py") {
        return Some(file);
    }
    let mut code = file.content.lines().map(str::trim_start).filter(|l| !l.is_empty() && !l.starts_with('#'));
    let first = code.next().unwrap_or_default();
    let is_other_cell = first.starts_with("%%") && !PYTHON_CELLS.iter().any(|cell| first.starts_with(cell));
    if is_prompt(first) || is_other_cell {
        return None;
    }
    let mut in_session = false;
    let lines = file.content.lines().map(|line| {
        in_session = is_prompt(line) || (in_session && !line.trim().is_empty());
        if in_session { String::new() } else { without_command(line) }
    });
    let content = lines.map(|line| line + "\n").collect();
    Some(SourceFile { content, ..file })
}

fn is_prompt(line: &str) -> bool {
    line.starts_with(">>>")
}

/// `!pip install x`, `%matplotlib inline`: a statement to a notebook, so that one that does nothing stands for it.
fn without_command(line: &str) -> String {
    let body = line.trim_start();
    if body.starts_with(['!', '%']) {
        format!("{}pass", &line[..line.len() - body.len()])
    } else {
        line.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(content: &str, expected: Option<&str>) {
        let file = |content: &str| SourceFile { path: "a.py".into(), content: content.into() };
        assert_eq!(without_typing(file(content)), expected.map(file), "{content}");
    }

    #[test]
    fn lines_stay_where_they_are() {
        check("x = 1\n", Some("x = 1\n"));
        check(">>> 1\n1\n", None);
        check("# typed\n\n>>> 1\n", None);
        check("%%bash\nls\n", None);
        check("%%time\nx = 1\n", Some("pass\nx = 1\n"));
        check("if a:\n    !ls\n%pwd\n", Some("if a:\n    pass\npass\n"));
        check("x = 1\n>>> x\n1\n\ny = 2\n", Some("x = 1\n\n\n\ny = 2\n"));
        let text = SourceFile { path: "a.txt".into(), content: ">>> 1\n".into() };
        assert_eq!(without_typing(text.clone()), Some(text));
    }
}
