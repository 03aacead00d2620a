//! Which instructions the kernels use: chosen at run time, or named by whoever wants to compare.

use pulp::Arch;

/// An instruction set that the fast kernels are written for. A value exists only where the machine can run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level(pub(super) Kind);

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
#[error("this machine has no kernels called `{name}`; it has auto, f32, {known}")]
pub struct UnknownLevel {
    name: String,
    known: String,
}

impl Level {
    /// The fastest that this machine can run.
    pub fn best() -> Self {
        Self::available().last().copied().unwrap_or(Self(Kind::Scalar))
    }

    /// All that this machine can run, slowest first.
    pub fn available() -> Vec<Self> {
        let mut levels = vec![Self(Kind::Scalar)];
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
            levels.extend(found.into_iter().filter(|(runs, _)| *runs).map(|(_, kind)| Self(kind)));
        }
        #[cfg(target_arch = "aarch64")]
        {
            levels.push(Self(Kind::Neon));
            if std::arch::is_aarch64_feature_detected!("dotprod") {
                levels.push(Self(Kind::NeonDot));
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
            UnknownLevel { name: name.to_owned(), known: names.join(", ") }
        })
    }

    pub fn name(self) -> &'static str {
        match self.0 {
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
        match self.0 {
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
    }
}
