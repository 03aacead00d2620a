import streamlit as st
import pandas as pd

st.title("Inventory")
st.caption("Stock levels by warehouse")
st.metric("Items", 120)
data = pd.read_csv("inventory.csv")
st.dataframe(data)
st.bar_chart(data["stock"])
