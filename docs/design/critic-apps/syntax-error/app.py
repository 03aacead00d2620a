import streamlit as st

st.title("Survey"
name = st.text_input("Name")
if st.button("Send")
    st.success("Thanks")
