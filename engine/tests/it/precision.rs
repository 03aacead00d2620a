//! Training the real weights in bf16 against training them in f32.

use hone_engine::{
    chat::ChatMessage,
    model::Model,
    train::{Control, Data, Example, Frozen, Options, Precision, run},
};

use crate::trainable_model;

/// Tasks with answers of one idiom, as a fine-tuning file has them.
fn examples(model: &Model) -> Vec<Example> {
    let subjects = ["sales", "weather", "stock", "visitors", "energy", "books", "flights", "teams"];
    let example = |subject: &&str| {
        let code = format!(
            "```python\nimport streamlit as st\n\nst.title(\"{subject}\")\nvalue = st.slider(\"Show\", 1, 50, 10)\n\
             st.metric(\"Total {subject}\", value)\nst.line_chart([value * i for i in range(10)])\n```"
        );
        let messages = [
            ChatMessage::system("You write Streamlit apps."),
            ChatMessage::user(format!("A dashboard of {subject} with a slider and a chart")),
            ChatMessage::assistant(code),
        ];
        let (ids, trained) = model.render_training(&messages).unwrap();
        Example { ids, trained }
    };
    subjects.iter().map(example).collect()
}

fn losses(model: &Model, precision: Precision) -> Vec<f64> {
    let frozen = Frozen::new((*model.weights).clone(), precision);
    let examples = examples(model);
    let dir = tempfile::tempdir().unwrap();
    let options = Options { epochs: 2, batch_size: 2, learning_rate: 1e-3, ..Options::default() };
    let mut losses = Vec::new();
    run(&frozen, &Data::Supervised { train: &examples, valid: &[] }, &options, dir.path(), &mut |step| {
        losses.push(step.train.loss);
        Control::Continue
    })
    .unwrap();
    losses
}

/// Two runs drift apart as each step starts from the last one's rounding; within 3% of the first loss they are one curve,
/// which falls by most of it.
#[test]
fn the_loss_curve_in_bf16_is_that_of_f32() {
    let Some(model) = trainable_model() else { return };
    let (exact, rounded) = (losses(model, Precision::F32), losses(model, Precision::Bf16));
    println!("f32  {exact:.4?}\nbf16 {rounded:.4?}");
    assert_eq!(exact.len(), 8);
    assert!(exact[7] < 0.5 * exact[0], "{exact:?}");
    let off = exact.iter().zip(&rounded).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(off < 0.03 * exact[0], "{off}: {exact:?} {rounded:?}");
}
