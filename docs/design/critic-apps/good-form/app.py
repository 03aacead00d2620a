import streamlit as st

st.set_page_config(page_title="Contact us")
st.title("Contact us")
st.caption("We answer every message within one working day")

with st.form("contact"):
    name = st.text_input("Name")
    email = st.text_input("Email")
    topic = st.selectbox("Topic", ["Sales", "Support", "Other"])
    message = st.text_area("Message")
    copy = st.checkbox("Send me a copy")
    sent = st.form_submit_button("Send message")

if sent:
    if not name or "@" not in email:
        st.error("Give a name and a valid email address")
    else:
        st.success(f"Thank you, {name}. We will answer {email} about {topic.lower()}.")
