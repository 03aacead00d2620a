import streamlit as st

st.set_page_config(page_title="Settings")
st.title("Account settings")
st.text_input("Display name")
st.selectbox("Language", ["English", "German"])
st.toggle("Email notifications")
st.radio("Theme", ["Light", "Dark"])
st.button("Save settings")
