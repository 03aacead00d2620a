import pandas as pd
import streamlit as st

st.set_page_config(page_title="Quarterly sales report", layout="wide")
st.title("Quarterly sales report")
st.caption("Revenue and orders by region, third quarter")

data = pd.DataFrame(
    {
        "Region": ["North", "South", "East", "West"],
        "Revenue": [120_000, 98_000, 143_000, 87_000],
        "Orders": [1300, 1100, 1525, 960],
    }
)

revenue, orders, average = st.columns(3)
revenue.metric("Revenue", f"${data['Revenue'].sum():,}", "+8%")
orders.metric("Orders", f"{data['Orders'].sum():,}", "+3%")
average.metric("Average order", f"${data['Revenue'].sum() / data['Orders'].sum():.0f}", "+5%")

st.header("Revenue by region")
st.bar_chart(data, x="Region", y="Revenue")
st.header("All regions")
st.dataframe(data, hide_index=True)
st.info("East grew fastest; West missed its target by 4%.")
