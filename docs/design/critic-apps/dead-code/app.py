import streamlit as st

if False:
    st.title("Event booking")
    st.date_input("Date")
    st.selectbox("Room", ["A", "B"])
    st.text_input("Name")
    st.button("Book")


def page():
    st.metric("Rooms free", 3)
    st.dataframe({"Room": ["A", "B"]})
    st.bar_chart({"Bookings": [1, 2]})
