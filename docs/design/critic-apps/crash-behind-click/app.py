import pandas as pd
import streamlit as st

st.set_page_config(page_title="Inventory")
st.title("Inventory")
st.caption("Stock levels by warehouse")
data = pd.DataFrame({"Item": ["Bolt", "Nut", "Gear"], "Stock": [40, 8, 15], "Warehouse": ["A", "B", "A"]})
warehouse = st.selectbox("Warehouse", ["A", "B"])
view = data[data["Warehouse"] == warehouse]
st.metric("Items in stock", int(view["Stock"].sum()))
st.dataframe(view, hide_index=True)
if st.button("Reorder low stock"):
    low = view[view["Stock"] < treshold]
    st.success(f"Ordered {len(low)} items")
