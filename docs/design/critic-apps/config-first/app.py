import streamlit as st
from config import APP_NAME

st.title(APP_NAME)
st.write("Welcome to the dashboard")
st.metric("Sales", "100")
