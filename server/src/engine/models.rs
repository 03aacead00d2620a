//! Models in memory: base models for good, what tuned ones add to them as long as there is room.
//!
//! A model is loaded on a thread for such work, once however many ask for it, and to the end even when nobody waits any
//! more; answers of other models go on meanwhile.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use hone_engine::{
    constrain::{ConstraintError, Grammars},
    infer::{Decoder, Delta, Options},
    lora::Adapter,
    model::Model,
};

use crate::{config::BaseModel, error::ApiError};

/// What a tuned model adds to its base; none for the base itself.
pub type Tuning = Option<Arc<Delta>>;

/// A base model.
pub struct Loaded {
    pub id: String,
    pub model: Model<Decoder>,
    grammars: OnceLock<Result<Grammars, ConstraintError>>,
}

impl Loaded {
    /// What turns schemas into constraints; made when the first one comes.
    pub fn grammars(&self) -> Result<&Grammars, ApiError> {
        let grammars = self.grammars.get_or_init(|| Grammars::new(&self.model.tokenizer));
        grammars.as_ref().map_err(|e| ApiError::bad_param("response_format", e.to_string()))
    }
}

/// What tuned models add, with the bytes that it takes.
type Tuned = (Arc<Delta>, usize);

/// All models in memory.
pub struct Models {
    bases: Store<Arc<Loaded>>,
    tuned: Store<Tuned>,
    tuned_bytes: usize,
    options: Options,
}

impl Models {
    /// Tuned models beyond `tuned_bytes` leave, the least recently used first; one always stays. All are computed with
    /// what `options` name.
    pub fn new(tuned_bytes: usize, options: Options) -> Self {
        Self { bases: Store::default(), tuned: Store::default(), tuned_bytes, options }
    }

    pub async fn base(&self, base: &BaseModel) -> Result<Arc<Loaded>, ApiError> {
        let (id, path, options) = (base.id.clone(), base.path.clone(), self.options);
        let load = move || {
            tracing::info!(model = id, path = %path.display(), "loading");
            let model = Model::open(&path, options);
            let model = model.map_err(|e| format!("model `{id}` cannot be loaded: {e}"))?;
            Ok(Arc::new(Loaded { id, model, grammars: OnceLock::new() }))
        };
        self.bases.get(&base.id, load).await
    }

    /// What the tuned model `id`, the last of a chain of adapters, adds to its base.
    pub async fn delta(&self, base: &Arc<Loaded>, id: &str, chain: &[PathBuf]) -> Result<Tuning, ApiError> {
        if chain.is_empty() {
            return Ok(None);
        }
        let (base, chain, name) = (base.clone(), chain.to_vec(), id.to_owned());
        let load = move || {
            let config = &base.model.weights.config;
            let adapters: Result<Vec<Adapter>, _> =
                chain.iter().map(|folder| Adapter::load(folder, config)).collect();
            let adapters = adapters.map_err(|e| format!("model `{name}` cannot be loaded: {e}"))?;
            let bytes = adapters.iter().map(Adapter::parameters).sum::<usize>() * size_of::<f32>();
            Ok((Arc::new(Delta::new(config, &adapters)), bytes))
        };
        let (delta, _) = self.tuned.get(id, load).await?;
        self.tuned.shrink(self.tuned_bytes, |(_, bytes)| *bytes);
        Ok(Some(delta))
    }

    /// Drops a tuned model.
    pub fn forget(&self, id: &str) {
        self.tuned.entries().retain(|(known, _)| known != id);
    }
}

/// Why loading failed, for everyone who waits for it.
type Load<T> = Shared<BoxFuture<'static, Result<T, String>>>;

/// Values by name, loaded or being loaded, the one used last at the end.
struct Store<T: Clone>(Mutex<Vec<(String, Load<T>)>>);

impl<T: Clone> Default for Store<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone + Send + Sync + 'static> Store<T> {
    fn entries(&self) -> MutexGuard<'_, Vec<(String, Load<T>)>> {
        // Nothing that is done under the lock can leave the list half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value of that name. A load that fails is tried again by the next one who asks.
    async fn get(
        &self,
        name: &str,
        load: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<T, ApiError> {
        let value = {
            let mut entries = self.entries();
            let known = entries.iter().position(|(known, _)| known == name).map(|at| entries.remove(at));
            let (_, value) = known.unwrap_or_else(|| {
                let task = tokio::task::spawn_blocking(load);
                let value = async { task.await.unwrap_or_else(|e| Err(e.to_string())) };
                (name.to_owned(), value.boxed().shared())
            });
            entries.push((name.to_owned(), value.clone()));
            value
        };
        let result = value.clone().await;
        result.map_err(|why| {
            self.entries().retain(|(_, other)| !other.ptr_eq(&value));
            ApiError::internal(why)
        })
    }

    /// Drops values that are there, the least recently used first, until the others take at most `most`, or one is left.
    fn shrink(&self, most: usize, size: impl Fn(&T) -> usize) {
        let mut entries = self.entries();
        let of = |value: &Load<T>| value.peek().and_then(|value| value.as_ref().ok()).map_or(0, &size);
        while entries.len() > 1 && entries.iter().map(|(_, value)| of(value)).sum::<usize>() > most {
            drop(entries.remove(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn what_many_ask_for_is_loaded_once() {
        let (store, loads) = (Store::<usize>::default(), Arc::new(AtomicUsize::new(0)));
        let load = || {
            let loads = loads.clone();
            move || Ok(loads.fetch_add(1, Ordering::SeqCst))
        };
        let (a, b, c) = tokio::join!(store.get("a", load()), store.get("a", load()), store.get("b", load()));
        let (a, b, c) = (a.unwrap(), b.unwrap(), c.unwrap());
        assert!(a == b && a != c);
        assert_eq!(loads.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_failure_is_not_remembered() {
        let store = Store::<usize>::default();
        assert!(store.get("a", || Err("no such file".into())).await.is_err());
        assert_eq!(store.get("a", || Ok(3)).await.unwrap(), 3);
        assert!(store.get("b", || panic!("a bug in the loader")).await.is_err());
    }

    #[tokio::test]
    async fn the_least_recently_used_leave_first_and_one_stays() {
        let store = Store::<usize>::default();
        for name in ["a", "b", "c", "a"] {
            store.get(name, || Ok(10)).await.unwrap();
        }
        let names = || store.entries().iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        store.shrink(25, |size| *size);
        assert_eq!(names(), ["c", "a"]);
        store.shrink(0, |size| *size);
        assert_eq!(names(), ["a"]);
    }
}
