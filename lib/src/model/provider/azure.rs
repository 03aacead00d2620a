//! Where Azure has what OpenAI has elsewhere.

use reqwest::Url;

use super::below;

/// An address: below `/openai` with `api-version` where one is given, below `/openai/v1` otherwise. The base may end in
/// either of the two already.
pub(super) fn url(base: &Url, path: &[&str], api_version: Option<&str>) -> Url {
    if path.is_empty() {
        return base.clone();
    }
    let mut root = base.clone();
    let kept: Vec<&str> =
        base.path_segments().into_iter().flatten().filter(|part| !part.is_empty()).collect();
    let kept = kept.strip_suffix(&["v1"]).filter(|kept| kept.last() == Some(&"openai")).unwrap_or(&kept);
    let kept = kept.strip_suffix(&["openai"]).unwrap_or(kept);
    root.set_path(&kept.join("/"));
    match api_version {
        None => below(&below(&root, &["openai", "v1"]), path),
        Some(version) => {
            let mut url = below(&below(&root, &["openai"]), path);
            url.query_pairs_mut().append_pair("api-version", version);
            url
        }
    }
}
