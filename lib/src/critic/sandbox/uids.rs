//! Uids for workers that root starts: a limit on processes counts those of a uid, so no two workers may share one.
//!
//! The uids lie below 65536, because a container's root often has no others. Of the blocks that fit there each
//! running critic holds one, by the name of an abstract socket: a name has one holder at a time, and the kernel frees
//! it however the holder ends. What remains: with more critics than blocks, or in containers that share uids but not
//! the network, two may share a block, and a candidate that starts many processes then leaves fewer to another's.

use std::os::{
    linux::net::SocketAddrExt,
    unix::net::{SocketAddr, UnixListener},
};

const FIRST_UID: u32 = 64321;
/// Workers of one critic at most.
const BLOCK: u32 = 64;
const BLOCKS: u32 = 16;

/// Uids that are one critic's as long as this lives.
#[derive(Debug, Default)]
pub(super) struct UidBlock {
    number: u32,
    /// None when all blocks were taken.
    _held: Option<UnixListener>,
}

impl UidBlock {
    /// A block that nobody holds, if there is one.
    pub fn take() -> Self {
        Self::named("hone-sandbox-uids")
    }

    fn named(name: &str) -> Self {
        let first = std::process::id() % BLOCKS;
        let mut numbers = (0..BLOCKS).map(|step| (first + step) % BLOCKS);
        let free = numbers.find_map(|number| Some(Self { number, _held: Some(hold(name, number)?) }));
        free.unwrap_or(Self { number: first, _held: None })
    }

    /// The uid of the worker in a slot.
    pub fn uid(&self, slot: u32) -> u32 {
        FIRST_UID + self.number * BLOCK + slot % BLOCK
    }
}

fn hold(name: &str, number: u32) -> Option<UnixListener> {
    let address = SocketAddr::from_abstract_name(format!("{name}-{number}")).ok()?;
    UnixListener::bind_addr(&address).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn blocks_are_held_by_one_at_a_time_while_there_are_any() {
        let name = format!("hone-test-uids-{}", std::process::id());
        let take = || UidBlock::named(&name);
        let mut held: Vec<UidBlock> = (0..=BLOCKS).map(|_| take()).collect();
        let numbers: BTreeSet<u32> = held.iter().map(|block| block.number).collect();
        assert_eq!(numbers.len(), BLOCKS as usize, "only the one too many shares");
        let uids: BTreeSet<u32> =
            held.iter().flat_map(|block| (0..BLOCK).map(|slot| block.uid(slot))).collect();
        assert_eq!(uids.len(), (BLOCKS * BLOCK) as usize);
        assert!(uids.iter().all(|uid| (FIRST_UID..65534).contains(uid)), "65534 is nobody");
        let freed = held.remove(3).number;
        assert_eq!(take().number, freed);
    }
}
