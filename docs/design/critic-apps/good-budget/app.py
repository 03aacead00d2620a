import pandas as pd
import streamlit as st

st.set_page_config(page_title="Household budget", page_icon=":material/savings:")

if "expenses" not in st.session_state:
    st.session_state.expenses = [
        {"Category": "Rent", "Amount": 900.0},
        {"Category": "Groceries", "Amount": 320.0},
        {"Category": "Transport", "Amount": 75.0},
    ]

st.title("Household budget")
st.caption("Track monthly income, expenses and what is left to save")

income = st.number_input("Monthly income", min_value=0.0, value=2400.0, step=100.0)

with st.form("expense"):
    st.subheader("Add an expense")
    category = st.selectbox("Category", ["Rent", "Groceries", "Transport", "Leisure"])
    amount = st.number_input("Amount", min_value=0.0, value=20.0)
    if st.form_submit_button("Add expense"):
        st.session_state.expenses.append({"Category": category, "Amount": amount})
        st.success(f"Added {amount:.2f} for {category}")

table = pd.DataFrame(st.session_state.expenses)
total = table["Amount"].sum()
left, middle, right = st.columns(3)
left.metric("Income", f"{income:,.0f}")
middle.metric("Expenses", f"{total:,.0f}")
right.metric("Left to save", f"{income - total:,.0f}")

st.bar_chart(table.groupby("Category")["Amount"].sum())
chosen = st.multiselect("Show categories", sorted(table["Category"].unique()), default=sorted(table["Category"].unique()))
st.dataframe(table[table["Category"].isin(chosen)], hide_index=True)

if st.button("Clear expenses"):
    st.session_state.expenses = st.session_state.expenses[:1]
    st.rerun()
