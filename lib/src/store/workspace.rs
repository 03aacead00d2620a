//! Where things lie in a workspace. Nobody else spells these names.

use std::path::{Path, PathBuf};

/// A workspace by its root folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workspace {
    root: PathBuf,
}

impl Workspace {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn settings(&self) -> PathBuf {
        self.root.join("hone.toml")
    }

    pub fn train_briefs(&self) -> PathBuf {
        self.root.join("briefs/train.jsonl")
    }

    pub fn heldout_briefs(&self) -> PathBuf {
        self.root.join("briefs/heldout.jsonl")
    }

    /// Sealed briefs of one's own; nothing writes this file.
    pub fn sealed_briefs(&self) -> PathBuf {
        self.root.join("briefs/sealed.jsonl")
    }

    pub fn logs(&self) -> PathBuf {
        self.root.join("data/evolutionary_logs")
    }

    /// The log of one brief: `<id>.json` in round 1, `<id>.r<N>.json` later.
    pub fn log(&self, brief: &str, round: u32) -> PathBuf {
        let name = if round <= 1 { format!("{brief}.json") } else { format!("{brief}.r{round}.json") };
        self.logs().join(name)
    }

    pub fn dataset(&self) -> PathBuf {
        self.root.join("data/ui_agent_openai_finetuning.jsonl")
    }

    pub fn validation(&self) -> PathBuf {
        self.root.join("data/ui_agent_openai_finetuning.validation.jsonl")
    }

    pub fn preferences(&self) -> PathBuf {
        self.root.join("data/ui_agent_openai_finetuning.dpo.jsonl")
    }

    pub fn manifest(&self) -> PathBuf {
        self.root.join("data/ui_agent_openai_finetuning.manifest.json")
    }

    pub fn tuned_model_id(&self) -> PathBuf {
        self.root.join("data/finetuned_model_id.txt")
    }

    /// The job that was started last and for what, so that it is picked up and not started again.
    pub fn finetune(&self) -> PathBuf {
        self.state().join("finetune.json")
    }

    /// Which base weights the workspace began with.
    pub fn weights(&self) -> PathBuf {
        self.state().join("weights.json")
    }

    pub fn trials(&self) -> PathBuf {
        self.root.join("data/trials")
    }

    /// Checklists of judge models, and the pictures that they are shown.
    pub fn judge(&self) -> PathBuf {
        self.root.join("data/judge")
    }

    pub fn registry(&self) -> PathBuf {
        self.root.join("data/registry.jsonl")
    }

    /// When the sealed briefs were opened, and for which model.
    pub fn sealed_openings(&self) -> PathBuf {
        self.root.join("data/sealed_openings.jsonl")
    }

    /// Answers that were judged while a canary took a share of the requests.
    pub fn canary(&self) -> PathBuf {
        self.root.join("data/canary.jsonl")
    }

    /// What the rounds came to, for people; its picture has the same name.
    pub fn monitor(&self) -> PathBuf {
        self.root.join("data/monitor.md")
    }

    /// Which of two apps people preferred.
    pub fn ratings(&self) -> PathBuf {
        self.root.join("data/ratings.jsonl")
    }

    /// Apps that are scored in every round of a loop: what moves is the critic.
    pub fn anchors(&self) -> PathBuf {
        self.root.join("data/anchors.jsonl")
    }

    /// Evidence of apps that were looked at again for a dataset, one file for each.
    pub fn re_evaluated(&self) -> PathBuf {
        self.root.join("data/re_evaluated")
    }

    /// The dataset in other shapes.
    pub fn exports(&self) -> PathBuf {
        self.root.join("data/export")
    }

    /// Where every tuned model came from, a line each.
    pub fn models(&self) -> PathBuf {
        self.state().join("models.jsonl")
    }

    /// A dataset that a job was started with, by its hash.
    pub fn kept_dataset(&self, sha256: &str) -> PathBuf {
        self.state().join("datasets").join(format!("{sha256}.jsonl"))
    }

    /// The account of such a dataset.
    pub fn kept_manifest(&self, sha256: &str) -> PathBuf {
        self.state().join("datasets").join(format!("{sha256}.manifest.json"))
    }

    /// Private state: journal, jobs, tuned models, locks.
    pub fn state(&self) -> PathBuf {
        self.root.join(".hone")
    }

    /// Prices of the user's own, before the shipped ones.
    pub fn prices(&self) -> PathBuf {
        self.root.join("prices.toml")
    }

    pub fn journal(&self) -> PathBuf {
        self.state().join("journal")
    }

    /// Jobs of all providers, a folder for each row.
    pub fn jobs(&self) -> PathBuf {
        self.state().join("jobs")
    }

    /// Replies that were made elsewhere, one file for each brief.
    pub fn imported(&self) -> PathBuf {
        self.root.join("data/imported")
    }

    /// Briefs that imported replies answer.
    pub fn imported_briefs(&self) -> PathBuf {
        self.root.join("briefs/imported.jsonl")
    }

    /// Prompt templates that take the place of the shipped ones.
    pub fn prompts(&self) -> PathBuf {
        self.root.join("prompts")
    }

    /// Comparisons of search strategies.
    pub fn compare(&self) -> PathBuf {
        self.root.join("data/compare")
    }

    /// The local server's files, jobs and tuned models.
    pub fn server(&self) -> PathBuf {
        self.state().join("server")
    }

    pub fn lock(&self, name: &str) -> PathBuf {
        self.state().join(format!("{name}.lock"))
    }
}
