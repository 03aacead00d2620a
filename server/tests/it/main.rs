//! The server over real sockets, with a two-layer random model and real training children.

#[cfg(test)]
mod chat;
#[cfg(test)]
mod exchange;
#[cfg(test)]
mod files;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod jobs;
#[cfg(test)]
mod resume;
#[cfg(test)]
mod sdk;
#[cfg(test)]
mod weights;
