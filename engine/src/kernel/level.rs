//! Which instructions the kernels use: chosen at run time, or named by whoever wants to compare.

use pulp::Arch;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
use crate::amx;

/// An instruction set that the fast kernels are written for. A value exists only where the machine can run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    pub(super) kind: Kind,
    /// What takes the larger products instead.
    pub(super) tiles: Tiled,
}

/// Tiles beside vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tiled {
    No,
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    Amx,
    /// A model of AMX's tiles.
    #[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
    Model,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Plain Rust; what the others are tested against.
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX2 with 8-bit dot products.
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    /// AVX-512 with 8-bit dot products.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// NEON with 8-bit dot products.
    #[cfg(target_arch = "aarch64")]
    NeonDot,
}

/// A level that this machine does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this machine has no kernels called `{name}`{}; it has auto, f32, {known}", .why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default())]
pub struct UnknownLevel {
    name: String,
    /// Where there is more to say than that it is not there.
    why: Option<String>,
    known: String,
}

impl Level {
    /// The fastest that this machine can run.
    pub fn best() -> Self {
        Self::available().last().copied().unwrap_or(Self::vectors(Kind::Scalar))
    }

    pub(super) const fn vectors(kind: Kind) -> Self {
        Self { kind, tiles: Tiled::No }
    }

    /// All that this machine can run, slowest first.
    pub fn available() -> Vec<Self> {
        let mut levels = vec![Self::vectors(Kind::Scalar)];
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vnni");
            let found = [
                (avx2, Kind::Avx2),
                (avx2 && is_x86_feature_detected!("avxvnni"), Kind::AvxVnni),
                (avx2 && avx512, Kind::Avx512),
            ];
            levels.extend(found.into_iter().filter(|(runs, _)| *runs).map(|(_, kind)| Self::vectors(kind)));
            #[cfg(target_os = "linux")]
            if avx2 && avx512 && amx::found().is_ok() {
                levels.push(Self { kind: Kind::Avx512, tiles: Tiled::Amx });
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            levels.push(Self::vectors(Kind::Neon));
            if std::arch::is_aarch64_feature_detected!("dotprod") {
                levels.push(Self::vectors(Kind::NeonDot));
            }
        }
        levels
    }

    /// The level called `name`.
    ///
    /// # Errors
    /// When there is none of that name or this machine cannot run it.
    pub fn named(name: &str) -> Result<Self, UnknownLevel> {
        let available = Self::available();
        available.iter().copied().find(|level| level.name() == name).ok_or_else(|| {
            let names: Vec<&str> = available.iter().map(|level| level.name()).collect();
            UnknownLevel { name: name.to_owned(), why: why_not(name), known: names.join(", ") }
        })
    }

    /// All that this machine can run, and the fastest with a model of AMX's tiles.
    #[cfg(test)]
    pub(crate) fn tested() -> Vec<Self> {
        let mut levels = Self::available();
        #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
        levels.push(Self { tiles: Tiled::Model, ..Self::best() });
        levels
    }

    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    pub(crate) fn has_amx(self) -> bool {
        self.tiles == Tiled::Amx
    }

    #[cfg(target_arch = "x86_64")]
    pub(crate) fn has_avx512(self) -> bool {
        self.kind == Kind::Avx512
    }

    pub fn name(self) -> &'static str {
        match self.tiles {
            Tiled::No => {}
            #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
            Tiled::Amx => return "amx",
            #[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
            Tiled::Model => return "a model of amx",
        }
        match self.kind {
            Kind::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::AvxVnni => "avx-vnni",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => "neon",
            #[cfg(target_arch = "aarch64")]
            Kind::NeonDot => "neon-dot",
        }
    }

    /// The same choice for the f32 kernels.
    pub(crate) fn arch(self) -> Arch {
        match self.kind {
            Kind::Scalar => Arch::Scalar,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 | Kind::AvxVnni => pulp::x86::V3::try_new().map_or(Arch::Scalar, Arch::V3),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => Arch::new(),
            #[cfg(target_arch = "aarch64")]
            Kind::Neon | Kind::NeonDot => Arch::new(),
        }
    }
}

/// Why a level is not there, when a user may expect it.
fn why_not(name: &str) -> Option<String> {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    if name == "amx" {
        return amx::found().err().map(|why| why.to_string());
    }
    (name == "amx").then(|| "AMX is used on Linux on x86-64 alone".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_go_by_their_names() {
        for level in Level::available() {
            assert_eq!(Level::named(level.name()), Ok(level));
        }
        assert!(Level::available().contains(&Level::best()));
        let error = Level::named("mmx").unwrap_err().to_string();
        assert!(
            error.starts_with("this machine has no kernels called `mmx`; it has auto, f32, scalar"),
            "{error}"
        );
        #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
        match (amx::found(), Level::named("amx")) {
            (Ok(()), level) => assert_eq!(level, Ok(Level::best())),
            (Err(why), level) => {
                let error = level.unwrap_err().to_string();
                assert!(
                    error.starts_with(&format!("this machine has no kernels called `amx` ({why}); it has"))
                );
            }
        }
    }
}
