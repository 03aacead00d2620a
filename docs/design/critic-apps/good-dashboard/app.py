import pandas as pd
import streamlit as st

st.set_page_config(page_title="Well production", layout="wide")


@st.cache_data
def load() -> pd.DataFrame:
    wells = ["North 1", "North 2", "South 1"]
    rows = []
    for number, well in enumerate(wells):
        for day in range(1, 15):
            rows.append({"Day": day, "Well": well, "Barrels": 900 - 150 * number + 12 * day})
    return pd.DataFrame(rows)


data = load()
st.title("Well production")
st.caption("Barrels a day for each production well over two weeks")

with st.sidebar:
    st.header("Filters")
    wells = st.multiselect("Wells", sorted(data["Well"].unique()), default=sorted(data["Well"].unique()))
    days = st.slider("Days", 1, 14, (1, 14))

view = data[data["Well"].isin(wells) & data["Day"].between(*days)]
if view.empty:
    st.info("No production for this choice. Widen the filters.")
    st.stop()

total, best, mean = st.columns(3)
total.metric("Total barrels", f"{view['Barrels'].sum():,}")
best.metric("Best well", view.groupby("Well")["Barrels"].sum().idxmax())
mean.metric("Barrels a day", f"{view['Barrels'].mean():,.0f}")

st.header("Trend")
st.line_chart(view.pivot(index="Day", columns="Well", values="Barrels"))
st.header("Details")
st.dataframe(view, hide_index=True)
st.download_button("Download as CSV", view.to_csv(index=False), "production.csv")
