//! Responses that clients may come back to: in memory, as long as there is room.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use hone_engine::chat::ChatMessage;

use super::object::ResponseObject;

/// Most responses kept.
const MOST: usize = 1000;
/// Most bytes of conversations kept.
const MOST_BYTES: usize = 16 << 20;

/// A response and the conversation that it ends, without instructions: those are given anew with each request.
#[derive(Debug)]
pub struct Stored {
    pub response: ResponseObject,
    pub conversation: Vec<ChatMessage>,
}

impl Stored {
    fn bytes(&self) -> usize {
        self.conversation.iter().map(|message| message.content.len()).sum::<usize>() + size_of::<Self>()
    }
}

/// The responses kept, the one used last at the end.
#[derive(Debug, Default)]
pub struct Responses(Mutex<VecDeque<Arc<Stored>>>);

impl Responses {
    fn entries(&self) -> MutexGuard<'_, VecDeque<Arc<Stored>>> {
        // Nothing that is done under the lock can leave the list half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a response; those of use longest ago make room.
    pub fn keep(&self, stored: Stored) {
        let mut entries = self.entries();
        entries.push_back(stored.into());
        while entries.len() > MOST || entries.iter().map(|stored| stored.bytes()).sum::<usize>() > MOST_BYTES
        {
            entries.pop_front();
        }
    }

    pub fn get(&self, id: &str) -> Option<Arc<Stored>> {
        let mut entries = self.entries();
        let at = entries.iter().position(|stored| stored.response.id == id)?;
        let stored = entries.remove(at)?;
        entries.push_back(stored.clone());
        Some(stored)
    }

    /// Forgets a response; whether it was there.
    pub fn forget(&self, id: &str) -> bool {
        let mut entries = self.entries();
        let before = entries.len();
        entries.retain(|stored| stored.response.id != id);
        entries.len() < before
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::request::ResponseRequest, *};

    fn stored(text: &str) -> Stored {
        let body = json!({"model": "m", "input": "x"});
        let request = ResponseRequest::read(body.as_object().unwrap().clone()).unwrap();
        Stored {
            response: ResponseObject::opening(&request, "m"),
            conversation: vec![ChatMessage::user(text)],
        }
    }

    #[test]
    fn room_is_made_by_those_of_use_longest_ago() {
        let responses = Responses::default();
        let keep = |text: &str| {
            let stored = stored(text);
            let id = stored.response.id.clone();
            responses.keep(stored);
            id
        };
        let large = "x".repeat(MOST_BYTES / 2 - 2000);
        let (first, second) = (keep(&large), keep(&large));
        assert!(responses.get(&first).is_some());
        let third = keep("small, but too much");
        assert!(responses.get(&second).is_some(), "there is room for a small one");
        keep(&large);
        assert!(responses.get(&first).is_none() && responses.get(&second).is_some());
        assert!(responses.forget(&second) && !responses.forget(&second));
        assert!(responses.get(&third).is_some());
        (0..MOST).for_each(|_| drop(keep("")));
        assert!(responses.get(&third).is_none());
    }
}
