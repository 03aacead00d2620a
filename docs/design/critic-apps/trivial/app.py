import streamlit as st

st.title("Hello")
st.write("Hello, world!")
