//! A file as blocks of whole lines, worked on by several threads, their results in the file's order.
//!
//! Memory is that of some blocks, however large the file is. Blocks go to the workers in turn and results are taken in the
//! same turn, so what comes out does not depend on how many workers there are.

use std::{
    io::{self, BufRead, Read},
    sync::mpsc,
    thread,
};

use crate::{cancel::Cancel, critic::STACK};

/// Bytes that a block has at least, but for the last.
const BLOCK: usize = 1 << 18;
/// A longer line is no example; it is passed over without being held.
pub(super) const LONGEST: usize = 64 << 20;
/// Bytes from which on no more is read to see what a file is.
const BEGINNING: usize = 16 << 20;
/// Blocks that are under way at each worker: enough for what it reads until it can count ([`Work::may_finish`]).
const AHEAD: usize = 32;

/// Whole lines of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Block {
    /// Number of the first line, from 1.
    pub first: u64,
    pub bytes: Vec<u8>,
    /// The one line of this block was longer than [`LONGEST`]; `bytes` is empty.
    pub too_long: bool,
}

impl Block {
    /// Each line with its number, without its end. What follows the last newline is a line when it is not empty.
    pub fn lines(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let body = self.bytes.strip_suffix(b"\n").unwrap_or(&self.bytes);
        let ends = memchr::memchr_iter(b'\n', body).chain([body.len()]);
        let lines = ends.scan(0, |from, end| Some(&body[std::mem::replace(from, end + 1)..end]));
        let take = if self.bytes.is_empty() { 0 } else { usize::MAX };
        (self.first..)
            .zip(lines.take(take))
            .map(|(number, line)| (number, line.strip_suffix(b"\r").unwrap_or(line)))
    }
}

/// Reads blocks.
pub(super) struct Blocks<R> {
    source: R,
    /// What follows the last whole line that was read.
    rest: Vec<u8>,
    /// Number of the line that `rest` begins.
    line: u64,
    block: usize,
    longest: usize,
    ended: bool,
}

impl<R: Read> Blocks<R> {
    pub fn new(source: R) -> Self {
        Self::sized(source, BLOCK, LONGEST)
    }

    fn sized(source: R, block: usize, longest: usize) -> Self {
        Self { source, rest: Vec::new(), line: 1, block, longest, ended: false }
    }

    /// The first blocks: as many as it takes for so many lines, or for [`BEGINNING`].
    pub fn beginning(&mut self, lines: usize) -> io::Result<Vec<Block>> {
        let (mut blocks, mut held, mut bytes) = (Vec::new(), 0, 0);
        while held < lines && bytes < BEGINNING {
            let Some(block) = self.next()? else { break };
            held += block.lines().count();
            bytes += block.bytes.len();
            blocks.push(block);
        }
        Ok(blocks)
    }

    /// The next block; none at the end.
    pub fn next(&mut self) -> std::io::Result<Option<Block>> {
        let rest = std::mem::take(&mut self.rest);
        // Room for one byte more than is read, by which the end is known without growing.
        let mut bytes = Vec::with_capacity(rest.len() + self.block + 1);
        bytes.extend_from_slice(&rest);
        let mut searched = 0;
        loop {
            self.fill(&mut bytes)?;
            if let Some(at) = memchr::memrchr(b'\n', &bytes[searched..]) {
                self.rest = bytes.split_off(searched + at + 1);
                return Ok(Some(self.block_of(bytes)));
            }
            if self.ended {
                return Ok((!bytes.is_empty()).then(|| self.block_of(bytes)));
            }
            searched = bytes.len();
            if searched > self.longest {
                return self.pass_over().map(Some);
            }
        }
    }

    fn block_of(&mut self, bytes: Vec<u8>) -> Block {
        let first = self.line;
        self.line += memchr::memchr_iter(b'\n', &bytes).count() as u64;
        Block { first, bytes, too_long: false }
    }

    /// Reads at least a block more, unless the file ends.
    fn fill(&mut self, bytes: &mut Vec<u8>) -> std::io::Result<()> {
        if self.ended {
            return Ok(());
        }
        let took = self.source.by_ref().take(self.block as u64).read_to_end(bytes)?;
        self.ended |= took < self.block;
        Ok(())
    }

    fn pass_over(&mut self) -> std::io::Result<Block> {
        let block = Block { first: self.line, bytes: Vec::new(), too_long: true };
        let mut bytes = Vec::new();
        while !self.ended {
            bytes.clear();
            self.fill(&mut bytes)?;
            if let Some(at) = memchr::memchr(b'\n', &bytes) {
                self.rest = bytes.split_off(at + 1);
                break;
            }
        }
        self.line += 1;
        Ok(block)
    }
}

/// How a line ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Newline,
    /// The last line of a file may have no newline.
    File,
    /// It is longer than [`LONGEST`], and what is held is its beginning.
    TooLong,
}

/// Reads a line without its newline; none at the end. For who goes through a file line by line.
pub(super) fn read_line(source: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Option<Ended>> {
    line.clear();
    let took = source.take(LONGEST as u64 + 1).read_until(b'\n', line)?;
    Ok(match line.pop_if(|last| *last == b'\n') {
        _ if took == 0 => None,
        Some(_) => Some(Ended::Newline),
        None if took > LONGEST => Some(Ended::TooLong),
        None => Some(Ended::File),
    })
}

/// Hands on what is left of a line that was too long.
pub(super) fn pass_on(
    source: &mut impl BufRead,
    mut to: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    loop {
        let held = source.fill_buf()?;
        let end = memchr::memchr(b'\n', held);
        let part = &held[..end.unwrap_or(held.len())];
        let (took, is_over) = (part.len() + usize::from(end.is_some()), end.is_some() || held.is_empty());
        to(part)?;
        source.consume(took);
        if is_over {
            return Ok(());
        }
    }
}

/// How the way through a file ended.
#[derive(Debug)]
pub(super) enum Stopped {
    Read(std::io::Error),
    Thread(std::io::Error),
    Cancelled,
}

/// What is done with a block, in two steps.
pub(super) trait Work: Sync {
    /// What the first step makes of a block.
    type Read;
    /// What the second makes of that.
    type Done: Send;

    fn read(&self, block: Block) -> Self::Read;

    fn finish(&self, read: Self::Read) -> Self::Done;

    /// Whether the second step needs no more waiting. Until then a worker goes on with further blocks, if there are any.
    fn may_finish(&self) -> bool;
}

/// Does the work on every block with so many workers; `take` gets the results in the file's order.
///
/// Workers have the stack that parsing needs.
pub(super) fn each_block<R: Read, W: Work>(
    blocks: &mut Blocks<R>,
    first: Vec<Block>,
    workers: usize,
    cancel: &Cancel,
    work: &W,
    mut take: impl FnMut(W::Done),
) -> Result<(), Stopped> {
    thread::scope(|scope| {
        let mut lanes = Vec::new();
        let mut threads = Vec::new();
        for _ in 0..workers.max(1) {
            let (send, todo) = mpsc::sync_channel::<Block>(AHEAD);
            let (done, results) = mpsc::sync_channel::<W::Done>(AHEAD + 1);
            let builder = thread::Builder::new().name("validate".to_owned()).stack_size(STACK);
            let run = move || lane(work, &todo, &done);
            threads.push(builder.spawn_scoped(scope, run).map_err(Stopped::Thread)?);
            lanes.push((send, results));
        }
        let ended = feed(blocks, first, &lanes, cancel, &mut take);
        drop(lanes);
        // Whoever waits for a worker that broke off is told by its panic, not by a channel that closed.
        let panic = threads.into_iter().find_map(|thread| thread.join().err());
        panic.map_or(ended, |panic| std::panic::resume_unwind(panic))
    })
}

/// Works on the blocks of one lane, until there are no more or nobody takes results any more.
fn lane<W: Work>(work: &W, todo: &mpsc::Receiver<Block>, done: &mpsc::SyncSender<W::Done>) {
    while let Ok(block) = todo.recv() {
        let mut held = vec![work.read(block)];
        while !work.may_finish() && held.len() < AHEAD {
            let Ok(block) = todo.try_recv() else { break };
            held.push(work.read(block));
        }
        for read in held {
            if done.send(work.finish(read)).is_err() {
                return;
            }
        }
    }
}

type Lane<T> = (mpsc::SyncSender<Block>, mpsc::Receiver<T>);

fn feed<R: Read, T>(
    blocks: &mut Blocks<R>,
    first: Vec<Block>,
    lanes: &[Lane<T>],
    cancel: &Cancel,
    take: &mut impl FnMut(T),
) -> Result<(), Stopped> {
    let (mut sent, mut taken) = (0, 0);
    let mut first = first.into_iter();
    let mut take_one = |taken: &mut usize| {
        if let Ok(result) = lanes[*taken % lanes.len()].1.recv() {
            take(result);
        }
        *taken += 1;
    };
    while let Some(block) = match first.next() {
        Some(block) => Some(block),
        None => blocks.next().map_err(Stopped::Read)?,
    } {
        if cancel.is_cancelled() {
            return Err(Stopped::Cancelled);
        }
        if sent - taken >= AHEAD * lanes.len() {
            take_one(&mut taken);
        }
        if lanes[sent % lanes.len()].0.send(block).is_err() {
            return Ok(());
        }
        sent += 1;
    }
    while taken < sent {
        take_one(&mut taken);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;

    use super::*;

    fn lines_of(bytes: &[u8], block: usize, longest: usize, workers: usize) -> Vec<(u64, Option<Vec<u8>>)> {
        let mut found = Vec::new();
        let mut blocks = Blocks::sized(bytes, block, longest);
        let own = Own(AtomicUsize::new(0));
        each_block(&mut blocks, Vec::new(), workers, &Cancel::new(), &own, |lines| found.extend(lines))
            .unwrap();
        found
    }

    /// Every line with its number. Its second step is ready now and then.
    struct Own(AtomicUsize);

    impl Work for Own {
        type Read = Block;
        type Done = Vec<(u64, Option<Vec<u8>>)>;

        fn read(&self, block: Block) -> Block {
            block
        }

        fn finish(&self, block: Block) -> Self::Done {
            if block.too_long {
                return vec![(block.first, None)];
            }
            block.lines().map(|(number, line)| (number, Some(line.to_vec()))).collect()
        }

        fn may_finish(&self) -> bool {
            self.0.fetch_add(1, Ordering::Relaxed).is_multiple_of(3)
        }
    }

    #[test]
    fn a_line_that_never_ends_is_passed_over() {
        let text = [b"a\n".as_slice(), &[b'x'; 100], b"\nb\n"].concat();
        let whole = lines_of(&text, 8, 1000, 2);
        assert_eq!(whole.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2, 3]);
        let cut = lines_of(&text, 8, 50, 2);
        assert_eq!(cut, [(1, Some(b"a".to_vec())), (2, None), (3, Some(b"b".to_vec()))]);
        assert_eq!(lines_of(&[b'x'; 100], 8, 50, 1), [(1, None)]);
    }

    #[test]
    fn lines_are_read_one_by_one_and_none_is_held_that_is_too_long() {
        let long = vec![b'x'; LONGEST + 7];
        let text = [b"a\n\n".as_slice(), &long, b"\nb"].concat();
        let (mut source, mut line, mut found) = (&text[..], Vec::new(), Vec::new());
        while let Some(ended) = read_line(&mut source, &mut line).unwrap() {
            found.push((line.len(), ended));
            if ended == Ended::TooLong {
                let mut rest = 0;
                pass_on(&mut source, |part| Ok(rest += part.len())).unwrap();
                assert_eq!(rest, 6);
            }
        }
        let (newline, file) = (Ended::Newline, Ended::File);
        assert_eq!(found, [(1, newline), (0, newline), (LONGEST + 1, Ended::TooLong), (1, file)]);
    }

    #[test]
    fn a_cancel_stops_between_blocks() {
        let cancel = Cancel::new();
        cancel.cancel();
        let own = Own(AtomicUsize::new(0));
        let ended = each_block(&mut Blocks::new(&b"a"[..]), Vec::new(), 1, &cancel, &own, drop);
        assert!(matches!(ended, Err(Stopped::Cancelled)));
    }

    proptest! {
        #[test]
        fn every_line_comes_once_with_its_number(
            lines in prop::collection::vec("[a-z\r]{0,9}", 0..40), end in any::<bool>(),
            block in 1usize..30, workers in 1usize..4,
        ) {
            let text = lines.join("\n") + if end { "\n" } else { "" };
            let expected: Vec<_> = text.lines().zip(1..)
                .map(|(line, number)| (number, Some(line.as_bytes().to_vec())))
                .collect();
            // `str::lines` leaves a lone carriage return at the end of the text alone.
            prop_assume!(end || !text.ends_with('\r'));
            prop_assert_eq!(lines_of(text.as_bytes(), block, 1 << 20, workers), expected);
        }
    }
}
