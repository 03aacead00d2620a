//! Which files of a repository make a model.

use super::{HubError, HubId, RemoteFile};

/// What a repository holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// One GGUF file.
    Gguf,
    /// `config.json`, safetensors, tokeniser.
    Folder,
    /// What a trainer made: only means something over its base model.
    Adapter,
}

const TEXTS: [&str; 6] = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
];
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const ADAPTER: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];

/// Chooses: the file that was asked for, else safetensors, else the only GGUF.
pub(super) fn files(id: &HubId, files: Vec<RemoteFile>) -> Result<(Contents, Vec<RemoteFile>), HubError> {
    let has = |name: &str| files.iter().any(|file| file.name == name);
    let pick = |wanted: &dyn Fn(&str) -> bool| -> Vec<RemoteFile> {
        files.iter().filter(|file| wanted(&file.name)).cloned().collect()
    };
    let ggufs = pick(&|name| name.ends_with(".gguf"));
    if let Some(wanted) = &id.file {
        let file = ggufs.iter().find(|file| file.name == *wanted);
        return match file {
            Some(file) => Ok((Contents::Gguf, vec![file.clone()])),
            None => Err(HubError::NoFile { id: id.clone(), there: names(&ggufs) }),
        };
    }
    if has("config.json") && (has(SINGLE) || has(INDEX)) {
        let weights = |name: &str| match has(SINGLE) {
            true => name == SINGLE,
            false => name == INDEX || (name.starts_with("model-") && name.ends_with(".safetensors")),
        };
        return Ok((Contents::Folder, pick(&|name| TEXTS.contains(&name) || weights(name))));
    }
    if ADAPTER.iter().all(|name| has(name)) {
        return Ok((Contents::Adapter, pick(&|name| ADAPTER.contains(&name))));
    }
    match &ggufs[..] {
        [one] => Ok((Contents::Gguf, vec![one.clone()])),
        [] => {
            let pickled = files.iter().any(|file| file.name.ends_with(".bin") || file.name.ends_with(".pth"));
            Err(HubError::NoModel { id: id.clone(), pickled })
        }
        several => Err(HubError::Several { id: id.clone(), there: names(several) }),
    }
}

fn names(files: &[RemoteFile]) -> Vec<String> {
    files.iter().map(|file| file.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(id: &str, there: &[&str], expected: Result<(Contents, &[&str]), &str>) {
        let id = HubId::parse(id).unwrap();
        let file = |name: &&str| RemoteFile { name: (*name).into(), bytes: 1, sha256: None };
        let chosen = files(&id, there.iter().map(file).collect());
        match (chosen, expected) {
            (Ok((kind, files)), Ok((expected, wanted))) => {
                assert_eq!(
                    (kind, names(&files)),
                    (expected, wanted.iter().map(|s| (*s).to_owned()).collect())
                );
            }
            (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{error}"),
            (chosen, _) => panic!("{chosen:?}"),
        }
    }

    #[test]
    fn a_repository_gives_what_loads() {
        let folder = ["README.md", "config.json", "model.safetensors", "pytorch_model.bin", "tokenizer.json"];
        check(
            "a/b",
            &folder,
            Ok((Contents::Folder, &["config.json", "model.safetensors", "tokenizer.json"])),
        );
        let shards = [
            "config.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "optimizer.safetensors",
        ];
        check("a/b", &shards, Ok((Contents::Folder, &shards[..4])));
        check("a/b", &["x.gguf", "README.md"], Ok((Contents::Gguf, &["x.gguf"])));
        check("a/b", &["x.gguf", "y.gguf"], Err("several GGUF files"));
        check("a/b:y.gguf", &["x.gguf", "y.gguf"], Ok((Contents::Gguf, &["y.gguf"])));
        check("a/b:z.gguf", &["x.gguf", "y.gguf"], Err("no such file"));
        let adapter = ["adapter_config.json", "adapter_model.safetensors", "tokenizer.json"];
        check("a/b", &adapter, Ok((Contents::Adapter, &adapter[..2])));
        check("a/b", &["config.json", "pytorch_model.bin"], Err("only Python pickles"));
        check("a/b", &["README.md"], Err("nothing that can be loaded"));
    }
}
