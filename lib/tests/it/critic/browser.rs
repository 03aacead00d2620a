//! What the browser tells of apps, with the real Chromium.

use hone::critic::Level;

use super::{ALONE, app, brief, open, runtime};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints evidence"]
async fn evidence_of_an_app() {
    let Some(runtime) = runtime("browser evidence") else { return };
    let _alone = ALONE.lock().await;
    let critic = open(runtime).await;
    let path = std::env::var("APP").unwrap();
    let code = std::fs::read_to_string(&path).unwrap();
    for _ in 0..3 {
        let start = std::time::Instant::now();
        let evidence = critic.observe(&brief("x"), &app(&code), Level::Browser).await.unwrap();
        println!("{:?} {:?}", start.elapsed(), evidence.timing);
        if std::env::var("FULL").is_ok() {
            println!("{}", serde_json::to_string_pretty(&evidence.browser).unwrap());
        }
        let b = evidence.browser.unwrap();
        println!("{:?}", (b.ready, &b.detail, b.visible, evidence.agreement, &b.wide, &b.narrow));
        println!(
            "unseen {:?}",
            evidence
                .run
                .unwrap()
                .elements
                .iter()
                .filter(|e| e.unseen)
                .map(|e| (&e.kind, &e.label))
                .collect::<Vec<_>>()
        );
        println!(
            "{:?}",
            b.audit
                .iter()
                .map(|v| format!("{} {} {} {}", v.rule, v.impact, v.kind, v.nodes))
                .collect::<Vec<_>>()
        );
    }
    critic.close().await;
}
