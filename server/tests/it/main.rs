//! The server over real sockets, with a two-layer random model and real training children.

#[cfg(test)]
mod alias;
#[cfg(test)]
mod async_openai;
#[cfg(test)]
mod batches;
#[cfg(test)]
mod chat;
#[cfg(test)]
mod connections;
#[cfg(test)]
mod exchange;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod files;
#[cfg(test)]
mod graders;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod idempotency;
#[cfg(test)]
mod jobs;
#[cfg(test)]
mod pause;
#[cfg(test)]
mod preference;
#[cfg(test)]
mod responses;
#[cfg(test)]
mod resume;
#[cfg(test)]
mod sdk;
#[cfg(test)]
mod uploads;
#[cfg(test)]
mod weights;
