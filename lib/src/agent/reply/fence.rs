//! Blocks between fences, found the way models mean them rather than as CommonMark has it.

use std::cell::OnceCell;

use super::{language, language::Language, marker, path, strings::Strings};

/// A stretch of a reply.
#[derive(Debug)]
pub(super) enum Segment<'a> {
    Text(Vec<&'a str>),
    Block(Block<'a>),
}

/// What stands between two fences, without the fences' own indentation.
#[derive(Debug)]
pub(super) struct Block<'a> {
    pub info: Info,
    pub lines: Vec<&'a str>,
}

/// What a fence's info string says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Info {
    pub language: Option<Language>,
    /// A bare path: `python app.py`, `python:app.py`, `app.py`.
    pub path: Option<String>,
    /// A path in quotes: `python title="app.py"`. The block is this one file.
    pub title: Option<String>,
}

#[derive(Clone, Copy, Debug)]
struct Fence<'a> {
    mark: u8,
    length: usize,
    indent: usize,
    info: &'a str,
}

/// Cuts a reply into blocks and the text between them.
pub(super) fn segments(text: &str) -> Vec<Segment<'_>> {
    let reader = Reader { lines: text.split('\n').collect(), longest: OnceCell::new() };
    let mut segments = Vec::new();
    let mut prose = Vec::new();
    let mut at = 0;
    while at < reader.lines.len() {
        let Some((before, fence)) = opening(reader.lines[at]) else {
            prose.push(reader.lines[at]);
            at += 1;
            continue;
        };
        if !before.is_empty() {
            prose.push(before);
        }
        let (block, next) = reader.block(at + 1, fence);
        segments.push(Segment::Text(std::mem::take(&mut prose)));
        segments.push(Segment::Block(block));
        at = next;
    }
    segments.push(Segment::Text(prose));
    segments
}

/// A fence that begins its line, or ends a line of prose (`Here it is: ```python`), with the text before it.
fn opening(line: &str) -> Option<(&str, Fence<'_>)> {
    if let Some(fence) = fence(line) {
        return Some(("", fence));
    }
    let at = line.find("```")?;
    let tail = fence(&line[at..])?;
    let tagged = !tail.info.is_empty() && language::of_tag(tail.info).is_some();
    tagged.then_some((&line[..at], tail))
}

fn fence(line: &str) -> Option<Fence<'_>> {
    let body = line.trim_start();
    let mark = *body.as_bytes().first().filter(|b| matches!(b, b'`' | b'~'))?;
    let length = body.bytes().take_while(|b| *b == mark).count();
    let info = body[length..].trim();
    // "```code```" on one line is inline code.
    let inline = mark == b'`' && info.contains('`');
    (length >= 3 && !inline).then_some(Fence { mark, length, indent: line.len() - body.len(), info })
}

/// For each line and mark, the longest bare fence from there on: tells at once whether a long fence is ever closed.
fn longest_closings(lines: &[&str]) -> Vec<[usize; 2]> {
    let mut longest = vec![[0; 2]; lines.len() + 1];
    for at in (0..lines.len()).rev() {
        longest[at] = longest[at + 1];
        if let Some(fence) = fence(lines[at]).filter(|f| f.info.is_empty()) {
            let best = &mut longest[at][usize::from(fence.mark == b'~')];
            *best = fence.length.max(*best);
        }
    }
    longest
}

struct Reader<'a> {
    lines: Vec<&'a str>,
    /// [`longest_closings`], which only a reply with long fences needs.
    longest: OnceCell<Vec<[usize; 2]>>,
}

/// Where a block ends.
struct End<'a> {
    /// First line that is no longer the block's.
    line: usize,
    /// Code before a fence that ends its line.
    tail: Option<&'a str>,
    /// Where to read on.
    next: usize,
}

impl<'a> Reader<'a> {
    fn block(&self, start: usize, open: Fence<'a>) -> (Block<'a>, usize) {
        let (info, first) = read_info(open.info);
        let end = self.end(start, open, &info);
        let mut lines: Vec<&str> = first.into_iter().collect();
        lines.extend(self.lines[start..end.line].iter().map(|line| dedent(line, open.indent)));
        lines.extend(end.tail.map(|line| dedent(line, open.indent)));
        (Block { info, lines }, end.next)
    }

    /// Whether a fence at least as long follows.
    fn is_closed(&self, start: usize, open: Fence<'_>) -> bool {
        let longest = self.longest.get_or_init(|| longest_closings(&self.lines));
        longest[start][usize::from(open.mark == b'~')] >= open.length
    }

    fn end(&self, start: usize, open: Fence<'a>, info: &Info) -> End<'a> {
        // A long fence that is never closed by its like was closed by a short one.
        let length = if open.length == 3 || self.is_closed(start, open) { open.length } else { 3 };
        let is_like = |fence: &Fence<'_>| fence.mark == open.mark && fence.length >= length;
        let language =
            info.title.as_deref().or(info.path.as_deref()).map(language::of_path).or(info.language);
        let has_strings = matches!(language, None | Some(Language::Python | Language::Unknown));
        let nests = language == Some(Language::Markdown);
        let (mut strings, mut depth, mut quoted_until) = (Strings::default(), 0usize, start);
        for at in start..self.lines.len() {
            let line = self.lines[at];
            match fence(line).filter(is_like) {
                Some(fence) if nests && !fence.info.is_empty() => depth += 1,
                Some(_) if nests && depth > 0 => depth -= 1,
                Some(fence) if at >= quoted_until => match self.string_end(at, strings, is_like) {
                    Some(end) => quoted_until = end + 1,
                    None => return self.closing(start, at, fence),
                },
                Some(_) => {}
                None if !strings.inside() => {
                    if let Some(tail) = before_final_fence(line, open.mark, length) {
                        return End { line: at, tail: Some(tail), next: at + 1 };
                    }
                }
                None => {}
            }
            if has_strings {
                strings.feed(line);
            }
        }
        End { line: self.lines.len(), tail: None, next: self.lines.len() }
    }

    /// A fence with an info string in the middle of a block opens the next one: the closing fence was forgotten.
    fn closing(&self, start: usize, at: usize, fence: Fence<'a>) -> End<'a> {
        if fence.info.is_empty() || is_prose(fence.info) {
            return End { line: at, tail: None, next: at + 1 };
        }
        let mut line = at;
        while line > start && self.lines[line - 1].trim().is_empty() {
            line -= 1;
        }
        // The line above the new fence may be its heading, which is for the next block to read.
        let is_heading = line > start && marker::is_heading(self.lines[line - 1]);
        if is_heading {
            End { line: line - 1, tail: None, next: line - 1 }
        } else {
            End { line: at, tail: None, next: at }
        }
    }

    /// When a fence stands in a triple-quoted string together with the fence that closes it, the line on which that
    /// string ends. A string that just was never closed does not hide the block's end.
    fn string_end(&self, at: usize, strings: Strings, is_like: impl Fn(&Fence<'_>) -> bool) -> Option<usize> {
        let quotes = strings.end()?;
        let mut open = false;
        for (offset, line) in self.lines[at..].iter().enumerate() {
            let ends = line.contains(quotes);
            if let Some(fence) = fence(line).filter(&is_like) {
                if open && !fence.info.is_empty() && !ends {
                    return None;
                }
                open = !open;
            }
            if ends {
                return (!open).then_some(at + offset);
            }
        }
        None
    }
}

/// `st.write(1)```` `: code whose closing fence did not get a line of its own.
fn before_final_fence(line: &str, mark: u8, length: usize) -> Option<&str> {
    let line = line.trim_end();
    if !line.ends_with(mark as char) {
        return None;
    }
    let code = line.trim_end_matches(mark as char);
    let run = line.len() - code.len();
    let code = code.trim_end();
    (run >= length && !code.is_empty() && !code.contains("```")).then_some(code)
}

fn dedent(line: &str, indent: usize) -> &str {
    let blanks = line.bytes().take(indent).take_while(|b| matches!(b, b' ' | b'\t')).count();
    &line[blanks..]
}

/// Words after a closing fence: "```This app shows...".
fn is_prose(info: &str) -> bool {
    let mut words = info.split_whitespace();
    let first = words.next().unwrap_or_default();
    words.count() >= 2 && read_info(info) == (Info::default(), None) && !first.contains(['=', ':'])
}

/// Reads an info string; also returns code that was written on the fence's own line.
fn read_info(info: &str) -> (Info, Option<&str>) {
    let title = title(info).filter(|t| path::safe(t).is_some());
    let mut result = Info { title, ..Info::default() };
    if let Some(word) = info.split(|c: char| c.is_whitespace() || "{}:=,".contains(c)).find(|w| !w.is_empty())
    {
        result.language = language::of_tag(word);
    }
    let first_line = ["import ", "from "].iter().find_map(|keyword| {
        let at = info.find(keyword)?;
        let is_alone = at == 0 || (result.language.is_some() && info[..at].split_whitespace().count() == 1);
        is_alone.then(|| &info[at..])
    });
    let separators = |c: char| c.is_whitespace() || "{}()[]:=,\"'#<>".contains(c);
    if first_line.is_none() && result.title.is_none() {
        result.path = info.split(separators).rfind(|w| path::is_file_name(w)).map(str::to_owned);
    }
    (result, first_line)
}

/// The value of `title="..."` and its synonyms.
fn title(info: &str) -> Option<String> {
    ["title=\"", "filename=\"", "file=\"", "path=\"", "name=\""].iter().find_map(|key| {
        let at = info.find(key)?;
        let value = info[at + key.len()..].split('"').next()?.trim();
        (!value.is_empty()).then(|| value.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(info: &str, language: Option<Language>, path: &str, title: &str) {
        let (read, _) = read_info(info);
        let or_empty = |o: &Option<String>| o.clone().unwrap_or_default();
        assert_eq!(
            (read.language, or_empty(&read.path).as_str(), or_empty(&read.title).as_str()),
            (language, path, title),
            "{info}"
        );
    }

    #[test]
    fn info_strings() {
        let py = Some(Language::Python);
        check("", None, "", "");
        check("python", py, "", "");
        check("Python3", py, "", "");
        check("{.python}", py, "", "");
        check("streamlit", py, "", "");
        check("python title=\"src/app.py\"", py, "", "src/app.py");
        check("py filename=app.py", py, "app.py", "");
        check("python app.py", py, "app.py", "");
        check("python:app.py", py, "app.py", "");
        check("python (app.py)", py, "app.py", "");
        check("python # app.py", py, "app.py", "");
        check("12:40:src/app.py", None, "src/app.py", "");
        check("app.py", None, "app.py", "");
        check("toml .streamlit/config.toml", Some(Language::Toml), ".streamlit/config.toml", "");
        check("python import streamlit as st", py, "", "");
        check("rust", None, "", "");
    }
}
