import streamlit as st

st.title("Tasks")
task = st.text_input("Task")
if st.button("Add"):
    st.write("Added " + task)
st.write("Buy milk")
st.write("Call Bob")
