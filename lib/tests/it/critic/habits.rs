//! The habits of docs/habits with apps that keep and break them.

use hone::critic::{Critic, CriticRuntime, Guidelines, Habit, Level, Standards, score_by};

use super::{app, brief, open, runtime};

const FORMS: &str = include_str!("../../../../docs/habits/inputs-in-forms.toml");
const PIES: &str = include_str!("../../../../docs/habits/no-pie-charts.toml");
const TITLES: &str = include_str!("../../../../docs/habits/charts-have-titles.toml");
const HEADING: &str = include_str!("../../../../docs/habits/one-primary-heading.toml");

/// What apps of charts begin with.
const DATA: &str = "import altair as alt\nimport pandas as pd\nimport streamlit as st\n\nst.title('Sales')\nst.text_input('Region')\n\
    df = pd.DataFrame({'a': ['x', 'y', 'z'], 'n': [1, 2, 3]})\nchart = alt.Chart(df)\n";

/// The app runs, and misses as many checks of the habit as told, each an issue with the guideline that the check names.
async fn check(critic: &Critic, habit: &str, source: &str, missed: usize) {
    let habit = Habit::parse(habit).unwrap();
    let evidence = critic.observe(&brief("sales"), &app(source), Level::Run).await.unwrap();
    assert!(evidence.runs(), "{source}\n{:#?}", evidence.run);
    let kept = habit.kept(&evidence);
    assert_eq!(kept.missed.len(), missed, "{}\n{source}\n{:#?}", habit.name, evidence.run);
    let standards = Standards { habits: vec![habit.clone()], ..Standards::default() };
    let issues = score_by(&evidence, &standards).issues;
    for check in habit.checks.iter().filter(|check| kept.missed.contains(&check.message)) {
        let issue = issues.iter().find(|issue| issue.message.starts_with(&check.message));
        let issue = issue.unwrap_or_else(|| panic!("{}: {issues:#?}", check.message));
        assert_eq!(issue.guideline, check.guideline);
        assert!(Guidelines::embedded().get(issue.guideline.as_deref().unwrap()).is_some());
    }
}

async fn charts(critic: &Critic, habit: &str, code: &str, missed: usize) {
    check(critic, habit, &format!("{DATA}{code}\n"), missed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn apps_keep_and_break_the_habits_of_the_guide() {
    let Some(runtime) = runtime("habits") else { return };
    let _alone = super::ALONE.lock().await;
    let libraries = has_libraries(&runtime);
    let critic = open(runtime).await;
    forms(&critic).await;
    headings(&critic).await;
    pies(&critic).await;
    titles(&critic).await;
    if libraries {
        figures(&critic).await;
    } else {
        eprintln!("SKIPPED habits about Plotly and Matplotlib: the environment under test has not both");
    }
    critic.close().await;
}

async fn forms(c: &Critic) {
    let page =
        |body: &str| format!("import streamlit as st\nst.title('Contact')\n{body}\nst.button('Reload')\n");
    let inside = "with st.form('f'):\n    st.text_input('Name')\n    st.slider('Age', 0, 99)\n    st.form_submit_button('Send')";
    check(c, FORMS, &page(inside), 0).await;
    check(c, FORMS, &page(&format!("{inside}\nst.checkbox('Newsletter')")), 1).await;
    check(c, FORMS, &page("st.text_input('Name')\nst.slider('Age', 0, 99)"), 1).await;
}

async fn headings(c: &Critic) {
    check(c, HEADING, "import streamlit as st\nst.title('A')\nst.header('B')\nst.text_input('C')\n", 0).await;
    check(c, HEADING, "import streamlit as st\nst.title('A')\nst.title('B')\nst.text_input('C')\n", 1).await;
    check(c, HEADING, "import streamlit as st\nst.header('A')\nst.metric('B', 1)\nst.text_input('C')\n", 1)
        .await;
}

async fn pies(c: &Critic) {
    let bars = "st.bar_chart(df, x='a', y='n')\nst.altair_chart(chart.mark_bar().encode(x='n', y='a'))";
    charts(c, PIES, bars, 0).await;
    charts(c, PIES, &format!("{bars}\nst.altair_chart(chart.mark_arc().encode(theta='n', color='a'))"), 1)
        .await;
    let beside = "st.altair_chart(chart.mark_bar().encode(x='n') | chart.mark_arc().encode(theta='n'))";
    charts(c, PIES, beside, 1).await;
    let spec = "{'mark': {'type': 'arc'}, 'encoding': {'theta': {'field': 'n', 'type': 'quantitative'}}}";
    charts(c, PIES, &format!("st.vega_lite_chart(df, {spec})"), 1).await;
    charts(
        c,
        PIES,
        "st.echarts_chart({'series': [{'type': 'pie', 'data': [{'name': 'x', 'value': 1}]}]})",
        1,
    )
    .await;
}

async fn titles(c: &Critic) {
    let bare = "st.bar_chart(df, x='a', y='n')";
    charts(c, TITLES, &format!("st.subheader('By region')\n{bare}"), 0).await;
    charts(c, TITLES, &format!("st.markdown('### By region')\n{bare}"), 0).await;
    charts(c, TITLES, bare, 1).await;
    charts(c, TITLES, &format!("st.subheader('By region')\n{bare}\nst.line_chart(df, x='a', y='n')"), 1)
        .await;
    let own = "st.altair_chart(chart.mark_bar().encode(x='n').properties(title='By region'))";
    charts(c, TITLES, own, 0).await;
    charts(c, TITLES, &format!("{own}\nst.altair_chart(chart.mark_point().encode(x='n'))"), 1).await;
    let spec = |title: &str| {
        format!(
            "st.vega_lite_chart(df, {{'mark': 'bar', {title}'encoding': {{'x': {{'field': 'n', 'type': 'quantitative'}}}}}})"
        )
    };
    charts(c, TITLES, &spec("'title': 'By region', "), 0).await;
    charts(c, TITLES, &spec(""), 1).await;
}

/// Figures of libraries that do not come with Streamlit.
async fn figures(c: &Critic) {
    let plotly = |code: &str| format!("import plotly.express as px\n{code}");
    let bar = "st.plotly_chart(px.bar(df, x='a', y='n', title='By region'))";
    let pie = "st.plotly_chart(px.pie(df, names='a', values='n', title='Shares'))";
    charts(c, PIES, &plotly(bar), 0).await;
    charts(c, PIES, &plotly(&format!("{bar}\n{pie}")), 1).await;
    charts(c, TITLES, &plotly(&format!("{bar}\n{pie}")), 0).await;
    charts(c, TITLES, &plotly(&format!("{bar}\nst.plotly_chart(px.bar(df, x='a', y='n'))")), 1).await;
    let pyplot = |code: &str| {
        format!("import matplotlib.pyplot as plt\nfigure, ax = plt.subplots()\n{code}\nst.pyplot(figure)")
    };
    charts(c, PIES, &pyplot("ax.bar(df['a'], df['n'])"), 0).await;
    charts(c, PIES, &pyplot("ax.pie(df['n'], labels=df['a'])"), 1).await;
    charts(c, PIES, &pyplot("df.set_index('a')['n'].plot.pie(ax=ax)"), 1).await;
    charts(c, TITLES, &pyplot("ax.bar(df['a'], df['n'])"), 1).await;
    charts(c, TITLES, &pyplot("ax.bar(df['a'], df['n'])\nax.set_title('By region')"), 0).await;
    charts(c, TITLES, &pyplot("ax.bar(df['a'], df['n'])\nst.subheader('By region')"), 0).await;
}

fn has_libraries(runtime: &CriticRuntime) -> bool {
    let mut python = std::process::Command::new(&runtime.python);
    python.args(["-c", "import matplotlib, plotly"]).output().is_ok_and(|ran| ran.status.success())
}
