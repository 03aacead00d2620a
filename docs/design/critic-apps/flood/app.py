import streamlit as st

st.title("Everything")
with st.expander("More"):
    for number in range(60):
        st.text_input(f"Field {number}", key=f"t{number}")
        st.button(f"Button {number}", key=f"b{number}")
        st.metric(f"Metric {number}", number)
